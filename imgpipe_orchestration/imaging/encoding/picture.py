"""A picture to be encoded, how its files are scored, and whether it is a drawing.

Charts, screenshots, text and codes have smaller files without loss than lossy ones of a quality that shows them well,
down to a twentieth, in their original size. Once they are shrunk their edges have a thousand shades, and the lossy file
is smaller; so it is for drawings in large flat areas. So a lossless file is made where it may pay, and kept where it is
smaller.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour import GREY, WHITE, Backdrop, backdrop_for, flattened
from imgpipe_orchestration.imaging.encoding.ssimulacra2 import Reference
from imgpipe_orchestration.imaging.opencv import cv2

_SMALLEST_SIDE = 32
"""Pixels of a side below which the score lacks its coarse scales: what is smaller is scored repeated, in mirrors."""
_TRIED = 1_450_000
"""Pixels above which a photograph is tried by its excerpt."""
_AVIF = b"ftypavif"
"""What these files have at byte 4."""
_TILES, _TILE = 8, 96
"""Tiles of an excerpt in a row and in a column, and pixels of a tile's side."""
_FADE = 8
"""Pixels over which a tile fades into the next one. With hard edges, excerpts of soft pictures scored up to 30 points
lower as AVIF than the pictures."""
_FLATTERED = 1.5
"""Points that an excerpt scores better than its picture: within 0.6 points (AVIF, WebP) and 0.7 (JPEG; standard
deviations, 29 photographs at 2400 px). Fewer or smaller tiles tell less: 0.8 to 1.4."""
_ALIGNED = 16
"""Tiles begin at multiples of this, as the encoders' blocks do."""
_MOST_COLOURS = 4096
"""Colours up to which a lossless file may pay. A page of text in five colours has 765 with the shades of its edges, a
logo on transparency 1,300 to 3,000, a screenshot with photographs 30,000."""
_MOST_CHANGES = 0.75
"""Share of pixels that differ from their left neighbour, up to which a lossless file may pay: 0.4 to 0.6 in a page of
text, 0.02 in a chart, 0.6 to 1 in most photographs (grey photographs have few colours as well)."""
_MOST_CHANGES_DRAWN = 0.4
"""Such a share in drawings with many colours; 0.5 to 1 in 130 photographs of 131 at 2400 px."""
_CHANGES_FOR_A_BYTE = 4.0
"""Such changes per byte of the lossy file, up to which a lossless file may be smaller: it codes 1.3 to 3 per byte, or
20 in repeated letters. Lossy files code 20 to 30 per byte of soft grey photographs, and 4 or more of flat drawings."""
_ONE_TRIP = 14_600
"""Bytes that arrive in one round trip (ten segments of 1460, RFC 6928); a smaller file is no faster."""
_EVERY = 8
"""Changes are counted in one of so many rows."""
Pixels = NDArray[np.uint8]
"""Rows x columns x channels."""


@dataclass(eq=False)
class Picture:
    """A picture to encode; several sizes of a small original are often the same one."""

    image: Image.Image
    target: float
    """The score to reach."""
    whole: bool = False
    """It shows all of the original and is not a crop."""
    flattered: float = 0.0
    """Points that its files score better than those of the picture that it stands for."""

    @property
    def pixels(self) -> int:
        return self.image.width * self.image.height

    @cached_property
    def excerpt(self) -> Picture | None:
        """What the tries of a large photograph are made of, as hard to encode: tiles spread evenly over it. None for
        others; excerpts of text and drawings say less."""
        if self.pixels <= _TRIED or is_drawn(self.image):
            return None
        cut = Image.fromarray(_excerpt_of(np.asarray(self.image)))
        return Picture(cut, self.target, flattered=_FLATTERED)

    @cached_property
    def _backdrop(self) -> Backdrop:
        return backdrop_for(self.image, GREY) if self.image.mode == "RGBA" else WHITE

    def score(self, data: bytes) -> float:
        """SSIMULACRA2 of an encoded file of this picture; transparency is laid over grey, or what shows it better."""
        return self._reference.score(_large_enough(self._decoded(data))) - self.flattered

    def _decoded(self, data: bytes) -> Pixels:
        if self.image.mode == "RGB" and not data.startswith(_AVIF, 4):
            # OpenCV reads JPEG and WebP in less time than Pillow, to the same pixels.
            return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)
        with Image.open(io.BytesIO(data)) as file:
            return np.asarray(flattened(file, self._backdrop))

    @cached_property
    def _reference(self) -> Reference:
        return Reference(_large_enough(np.asarray(flattened(self.image, self._backdrop))))


def _large_enough(pixels: Pixels) -> Pixels:
    lacking = [max(0, _SMALLEST_SIDE - side) for side in pixels.shape[:2]]
    return np.pad(pixels, [*((0, more) for more in lacking), (0, 0)], mode="symmetric") if any(lacking) else pixels


def _excerpt_of(pixels: Pixels) -> Pixels:
    """A side that is shorter than the tiles together stays as it is."""
    rows = _shortened(pixels)
    return np.ascontiguousarray(_shortened(rows.swapaxes(0, 1)).swapaxes(0, 1))


def _shortened(pixels: Pixels) -> Pixels:
    """The rows that the tiles cover."""
    rows = len(pixels)
    if rows <= _TILES * _TILE:
        return pixels
    middles = (np.arange(_TILES) + 0.5) * rows / _TILES
    starts = ((middles - _TILE / 2) // _ALIGNED * _ALIGNED).astype(int)
    chosen = np.concatenate([pixels[start : start + _TILE] for start in starts])
    share = ((np.arange(_FADE) + 0.5) / _FADE).astype(np.float32).reshape(-1, 1, 1)
    for number, start in enumerate(starts[:-1] + _TILE, 1):
        faded = chosen[number * _TILE : number * _TILE + _FADE]
        faded[:] = np.round(faded * share + pixels[start : start + _FADE] * (1 - share))
    return chosen


def is_drawn(image: Image.Image) -> bool:
    """Whether it may be text, a drawing or grey. Takes 0.7 ms more than `has_few_colours`."""
    return has_few_colours(image) or _changes(image) <= _MOST_CHANGES_DRAWN


def has_few_colours(image: Image.Image) -> bool:
    """Whether it may be text, a drawing or grey; takes 2 ms for 4 megapixels with many colours, 10 ms with few."""
    return image.getcolors(_MOST_COLOURS) is not None


def may_gain(image: Image.Image, lossy_bytes: int) -> bool:
    """Whether a lossless file is worth trying.

    Args:
        image: RGB or RGBA, with few colours.
        lossy_bytes: size of its lossy file in the same format.
    """
    if lossy_bytes <= _ONE_TRIP:
        return False
    most = _CHANGES_FOR_A_BYTE * lossy_bytes / (image.width * image.height)
    return _changes(image) <= min(_MOST_CHANGES, most)


def _changes(image: Image.Image) -> float:
    """The share of pixels that differ from their left neighbour."""
    rows = image.resize((image.width, -(-image.height // _EVERY)), Image.Resampling.NEAREST)
    colours = np.asarray(rows.convert("RGBA")).view(np.uint32)[..., 0]
    return float((colours[:, 1:] != colours[:, :-1]).mean()) if image.width > 1 else 0.0
