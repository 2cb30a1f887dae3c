"""A 2x2 grid of pictures, cut at its actual seams.

Image models draw gutters and frames, do not centre them, and sometimes leave them out. So these are searched for:

    frame      a plain band around the grid or around a picture; there may be words on it
    gutter     columns (or rows) of one colour from end to end, with an edge on both sides
    seam       without a gutter: an edge that runs from end to end

Everything is measured on two strips: the image averaged over bands of rows, and over bands of columns. Along a strip
positions keep full resolution, while texture and noise average out; a 2048 px grid takes 20 ms. Boxes are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from PIL import Image

from imgpipe_orchestration.imaging.geometry import PixelBox
from imgpipe_orchestration.imaging.portraits.grid_lines import Band, Cut, Strip, border, separator, strip_of

_SOFT = 3
"""Pixels cut away on each side of a seam, because drawn or resized edges are that soft."""

_LEAST_CONTRAST = 4.0
"""Standard deviation of the strips, grey levels, below which a picture is blank."""


class Shape(StrEnum):
    """What a picture turned out to be."""

    GRID = "grid"  # two rows of two
    BLANK = "blank"  # nothing to see
    SINGLE = "single picture"  # no seam in either direction
    ONE_ROW = "one row of two"  # a seam in one direction only
    ONE_COLUMN = "one column of two"
    MANY = "more than four pictures"  # every cell holds two or more


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape, and for a grid its four cells, trimmed and square: top left, top right, bottom left, bottom right."""

    shape: Shape
    cells: tuple[PixelBox, ...] = ()


def find_layout(image: Image.Image) -> Layout:
    """Find the four cells of `image`, or say what it is instead.

    Args:
        image: RGB, at least 64 px on each side.
    """
    columns, rows = strip_of(image, axis="x"), strip_of(image, axis="y")
    if max(float(strip.pixels.std(axis=(1, 2)).max()) for strip in (columns, rows)) < _LEAST_CONTRAST:
        return Layout(Shape.BLANK)
    bands = border(columns).bands + border(rows).bands
    left, right, _ = border(columns, bands)
    top, bottom, _ = border(rows, bands)
    columns, rows = columns.within(left, right, top, bottom), rows.within(top, bottom, left, right)

    x, y = separator(columns), separator(rows)
    # Rows may be cut at different places, or show their seam in one of them only.
    xs = _per_half(columns, y, (top, bottom)) if x is None and y is not None else (x, x)
    ys = _per_half(rows, x, (left, right)) if y is None and x is not None else (y, y)
    if not (xs[0] and xs[1] and ys[0] and ys[1]):
        shapes = {(True, True): Shape.SINGLE, (True, False): Shape.ONE_COLUMN, (False, True): Shape.ONE_ROW}
        return Layout(shapes[xs[0] is None, ys[0] is None])
    boxes = (
        (left, top, xs[0].end, ys[0].end),
        (xs[0].begin, top, right, ys[1].end),
        (left, ys[0].begin, xs[1].end, bottom),
        (xs[1].begin, ys[1].begin, right, bottom),
    )
    cells = [_trimmed(columns, rows, box, bands) for box in boxes]
    if _all_divided(columns, rows, cells):
        return Layout(Shape.MANY)
    return Layout(Shape.GRID, tuple(_squared(cell) for cell in cells))


def _all_divided(columns: Strip, rows: Strip, cells: Sequence[PixelBox]) -> bool:
    """Whether all cells have seams in the same direction. In a single cell it could be a door behind the head."""
    return all(_divided(columns.within(*cell[::2], *cell[1::2])) for cell in cells) or all(
        _divided(rows.within(*cell[1::2], *cell[::2])) for cell in cells
    )


def _divided(strip: Strip) -> bool:
    """Whether a cell's strip has a seam in its middle, or one at each third: `separator` looks near the middle only."""
    third = (strip.end - strip.start) // 3
    thirds = (replace(strip, end=strip.end - third), replace(strip, start=strip.start + third))
    return separator(strip) is not None or all(separator(part) for part in thirds)


def _per_half(strip: Strip, other: Cut, span: tuple[int, int]) -> tuple[Cut | None, Cut | None]:
    """The cuts on each side of a cut `other` in the other direction; one that is not visible is taken from its twin."""
    first, second = (separator(strip.band(*part)) for part in ((span[0], other.end), (other.begin, span[1])))
    return first or second, second or first


def _trimmed(columns: Strip, rows: Strip, box: PixelBox, known: Sequence[Band]) -> PixelBox:
    """The box without the soft edges along its seams and without a border of its own."""
    left, top, right, bottom = box
    left += _SOFT if left > 0 else 0
    top += _SOFT if top > 0 else 0
    right -= _SOFT if right < columns.length else 0
    bottom -= _SOFT if bottom < rows.length else 0
    left, right, _ = border(columns.within(left, right, top, bottom), known)
    top, bottom, _ = border(rows.within(top, bottom, left, right), known)
    return left, top, right, bottom


def _squared(box: PixelBox) -> PixelBox:
    """The largest square in the box: the middle of a wide one, nearer the top of a tall one, where heads are."""
    left, top, right, bottom = box
    side = min(right - left, bottom - top)
    x = left + (right - left - side) // 2
    y = top + (bottom - top - side) // 3
    return (x, y, x + side, y + side)


def cut(image: Image.Image, layout: Layout) -> list[Image.Image]:
    """The cells as images of their own."""
    return [image.crop(box) for box in layout.cells]
