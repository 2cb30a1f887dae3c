"""A bought portrait is judged, cut and encoded, from bytes to bytes, in a worker process of a `Workshop`.

The bytes come from outside, and much of the work would hold Python's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from imgpipe_orchestration.imaging.geometry import PixelBox
from imgpipe_orchestration.imaging.portraits.files import as_png, decoded, thumbnails
from imgpipe_orchestration.imaging.portraits.grid import Layout, Shape, cut, find_layout
from imgpipe_orchestration.imaging.portraits.judgement import Judgement, judge


@dataclass(frozen=True, slots=True)
class Wanted:
    """Requirements for a picture, and the label to write into it."""

    least_side: int
    """Pixels of the shorter side."""
    thumbnail_side: int
    xmp: str


@dataclass(frozen=True, slots=True)
class Files:
    """A picture to publish: the original (PNG) and its thumbnails by format."""

    png: bytes
    thumbnails: dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Portraits:
    """The usable pictures of a file, or why there are none. `cells` are their boxes in a grid, pixels."""

    judgement: Judgement
    files: tuple[Files, ...] = ()
    cells: tuple[PixelBox, ...] = ()


def selfie(data: bytes, wanted: Wanted) -> Portraits:
    """Judge one portrait. Its PNG is `data`, byte for byte.

    Raises:
        BadImage, TooLarge: as `decoded`.
    """
    image = decoded(data)
    judgement = judge([image], least_side=wanted.least_side)
    if judgement.reasons:
        return Portraits(judgement)
    return Portraits(judgement, (Files(data, thumbnails(image, wanted.thumbnail_side, wanted.xmp)),))


def four(data: bytes, wanted: Wanted) -> Portraits:
    """Find the four pictures of a 2x2 grid, and judge them; raises as `selfie`."""
    grid = decoded(data)
    layout = find_layout(grid)
    if layout.shape is not Shape.GRID:
        return unusable(f"it is not a 2x2 grid but {layout.shape.value}")
    images = cut(grid, layout)
    judgement = judge(images, least_side=wanted.least_side)
    if judgement.reasons:
        return Portraits(judgement)
    return Portraits(judgement, _encoded(images, wanted), layout.cells)


def these(data: bytes, cells: Sequence[PixelBox], wanted: Wanted) -> tuple[Files, ...]:
    """The pictures of a grid whose cells were found and judged before; raises as `selfie`."""
    return _encoded(cut(decoded(data), Layout(Shape.GRID, tuple(cells))), wanted)


def unusable(reason: str) -> Portraits:
    """Nothing can be published of this file."""
    return Portraits(Judgement({}, (reason,)))


def _encoded(images: Sequence[Image.Image], wanted: Wanted) -> tuple[Files, ...]:
    return tuple(
        Files(as_png(image, wanted.xmp), thumbnails(image, wanted.thumbnail_side, wanted.xmp)) for image in images
    )
