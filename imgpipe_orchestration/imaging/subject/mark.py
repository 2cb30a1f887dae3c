"""A logo's mark and its background: crops that would cut the mark show all of it, on more of that background."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour import flattened, has_opaque_edges
from imgpipe_orchestration.imaging.geometry import Box, PixelBox
from imgpipe_orchestration.imaging.opencv import lab_of
from imgpipe_orchestration.imaging.resize import shrink_within

NOTHING = (0, 0, 0, 0)
"""The background of a mark on transparency, RGBA."""
_LOOKED_AT = 512
_SEEN = 4.0
"""Lab distance to the background of a pixel that belongs to the mark (2.3 is just noticeable; JPEG leaves up to 4)."""
_OPACITY = 8
"""Levels of 255 below which a pixel cannot be seen."""
_MOSTLY = 0.6
"""Share of the edges that must have the background's colour: tightly cropped lettering touches the rest."""
_SEAM = 1.5
"""Lab distance by which an edge's background may be off before a seam shows between it and what is added."""


@dataclass(frozen=True)
class Mark:
    """A logo's mark and its background."""

    box: Box
    """Around all of it."""
    background: tuple[int, ...]
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
    background = np.round(np.median(np.concatenate(edges), axis=0)).astype(np.uint8)
    plain = lab_of(background[None, None])
    if not _is_plain([lab_of(edge[None])[0] - plain[0] for edge in edges]):
        return None
    small = shrink_within(opaque, _LOOKED_AT, _LOOKED_AT)
    differs = np.linalg.norm(lab_of(np.asarray(small)) - plain, axis=2) >= _SEEN
    colour = tuple(int(level) for level in background)
    return _mark(Image.fromarray(differs).getbbox(), small.size, (*colour, 255) if image.mode == "RGBA" else colour)


def _mark(found: PixelBox | None, size: tuple[int, int], background: tuple[int, ...]) -> Mark | None:
    return Mark(Box.of_pixels(found, *size), background) if found else None


def _is_plain(edges: list[NDArray[np.float32]]) -> bool:
    """Whether the edges show one background, from how far their pixels are off it in Lab (pixels x channels)."""
    backgrounds = [edge[np.linalg.norm(edge, axis=1) < _SEEN] for edge in edges]
    seams = [float(np.linalg.norm(np.median(background, axis=0))) for background in backgrounds if len(background)]
    return sum(map(len, backgrounds)) >= _MOSTLY * sum(map(len, edges)) and max(seams) < _SEAM
