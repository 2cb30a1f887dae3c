"""A logo's mark, and the ground it stands on: crops that would cut the mark show all of it, on more of that ground."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour import flattened, has_opaque_edges
from imgpipe_orchestration.imaging.geometry import Box, PixelBox
from imgpipe_orchestration.imaging.opencv import lab_of
from imgpipe_orchestration.imaging.resize import shrink_within

NOTHING = (0, 0, 0, 0)
"""The ground of a mark without one, RGBA."""
_LOOKED_AT = 512
_SEEN = 4.0
"""Lab distance from the ground from which a pixel belongs to the mark (2.3 is just noticeable; JPEG leaves up to 4)."""
_OPACITY = 8
"""Levels of 255 below which a pixel cannot be seen."""
_MOSTLY = 0.6
"""Share of the edges that must have the ground's colour: the letters of a word that was cut out closely touch them."""
_SEAM = 1.5
"""Lab distance by which an edge's ground may be off without a seam that is seen between it and what is added."""


@dataclass(frozen=True)
class Mark:
    """What a logo is drawn of."""

    box: Box
    """Around all of it."""
    ground: tuple[int, ...]
    """Colour around it, in the mode of the image: RGB, or RGBA."""


def find_mark(image: Image.Image) -> Mark | None:
    """The mark of a logo on one plain colour or on nothing; None where its edges are anything else, or there is none.

    Args:
        image: RGB or RGBA.
    """
    if image.mode == "RGBA" and not has_opaque_edges(image):
        seen = image.getchannel("A").point(lambda level: 255 * (level >= _OPACITY))
        return _mark(seen.getbbox(), image.size, NOTHING)
    opaque = flattened(image)
    pixels = np.asarray(opaque)
    edges = [pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]
    ground = np.round(np.median(np.concatenate(edges), axis=0)).astype(np.uint8)
    plain = lab_of(ground[None, None])
    if not _is_plain([lab_of(edge[None])[0] - plain[0] for edge in edges]):
        return None
    small = shrink_within(opaque, _LOOKED_AT, _LOOKED_AT)
    differs = np.linalg.norm(lab_of(np.asarray(small)) - plain, axis=2) >= _SEEN
    colour = tuple(int(level) for level in ground)
    return _mark(Image.fromarray(differs).getbbox(), small.size, (*colour, 255) if image.mode == "RGBA" else colour)


def _mark(found: PixelBox | None, size: tuple[int, int], ground: tuple[int, ...]) -> Mark | None:
    return Mark(Box.of_pixels(found, *size), ground) if found else None


def _is_plain(edges: list[NDArray[np.float32]]) -> bool:
    """Whether the edges show one ground, from how far their pixels are off it in Lab (pixels x channels)."""
    grounds = [edge[np.linalg.norm(edge, axis=1) < _SEEN] for edge in edges]
    seams = [float(np.linalg.norm(np.median(ground, axis=0))) for ground in grounds if len(ground)]
    return sum(map(len, grounds)) >= _MOSTLY * sum(map(len, edges)) and max(seams) < _SEAM
