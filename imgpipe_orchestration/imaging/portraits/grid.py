"""A 2x2 grid of pictures, cut at its actual seams.

Image models draw gutters and frames, do not centre them, and sometimes leave them out. So these are searched for:

    frame      a plain band around the grid or around a picture; there may be words on it
    gutter     columns (or rows) of one colour from end to end, with an edge on both sides
    seam       without a gutter: an edge that runs from end to end

Everything is measured on two strips: the image averaged over bands of rows, and over bands of columns. Along a strip
positions keep full resolution, while texture and noise average out; a 2048 px grid takes 20 ms. A line across the
picture is one position in a strip, which shows in most of the bands. Boxes are pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.geometry import PixelBox

Pixels = npt.NDArray[np.float32]
Ink = npt.NDArray[np.float32]
"""A colour, as `Strip.pixels` has them."""

_SOFT = 3
"""Pixels cut away on each side of a seam, because drawn or resized edges are that soft."""
_LEAST_CONTRAST = 4.0
"""Standard deviation of the strips, grey levels, below which a picture is blank."""
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Rec. 601, as JPEG has it."""
_BANDS = 32
_SAME = 8.0
"""Grey levels up to which two colours count as one: above JPEG noise, below what separates a frame from a picture."""
_REACH = 3
"""Pixels on each side of an edge that are compared: resampled edges are that soft."""
_FAINT = 3.0
"""Grey levels from which a step in a dark region may be a seam; dark backgrounds differ by no more."""
_LIT = 64.0
"""Luma from which a step must have _SAME levels; between, the minimum is interpolated."""
_STILL = 4.0
"""Grey levels between neighbouring pixels below which an edge has ended."""
_WIDEST = 0.14
"""Widest frame, border or gutter, as a share of the length."""
_OFF_CENTRE = 0.15
"""Farthest a seam lies from the middle. The seams of a 3x3 grid lie at 0.167: that is not a 2x2 grid."""


def find_cells(image: Image.Image) -> tuple[PixelBox, ...]:
    """The four cells of a grid, trimmed and square: top left, top right, bottom left, bottom right.

    Args:
        image: RGB, at least 64 px on each side.

    Raises:
        BadImage: it is no 2x2 grid; the message says what it is instead.
    """
    columns, rows = strip_of(image, axis="x"), strip_of(image, axis="y")
    if max(float(strip.pixels.std(axis=(1, 2)).max()) for strip in (columns, rows)) < _LEAST_CONTRAST:
        raise BadImage("it is not a 2x2 grid but blank")
    bands = border(columns)[2] + border(rows)[2]
    left, right, _ = border(columns, bands)
    top, bottom, _ = border(rows, bands)
    columns, rows = columns.within(left, right, top, bottom), rows.within(top, bottom, left, right)

    x, y = separator(columns), separator(rows)
    # Rows may be cut at different places, or show their seam in one of them only.
    xs = _per_half(columns, y, (top, bottom)) if x is None and y is not None else (x, x)
    ys = _per_half(rows, x, (left, right)) if y is None and x is not None else (y, y)
    if not (xs[0] and xs[1] and ys[0] and ys[1]):
        seen = "one row of two" if xs[0] else "one column of two" if ys[0] else "a single picture"
        raise BadImage(f"it is not a 2x2 grid but {seen}")
    boxes = (
        (left, top, xs[0].end, ys[0].end),
        (xs[0].begin, top, right, ys[1].end),
        (left, ys[0].begin, xs[1].end, bottom),
        (xs[1].begin, ys[1].begin, right, bottom),
    )
    cells = [_trimmed(columns, rows, box, bands) for box in boxes]
    if _all_divided(columns, rows, cells):
        raise BadImage("it is not a 2x2 grid but more than four pictures")
    return tuple(_squared(cell) for cell in cells)


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
    right -= _SOFT if right < columns.pixels.shape[2] else 0
    bottom -= _SOFT if bottom < rows.pixels.shape[2] else 0
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


class Cut(NamedTuple):
    """Where one half ends and the next begins."""

    end: int
    begin: int


class Band(NamedTuple):
    """A plain band at the side of a picture: its width, soft edge included, and its colour."""

    width: int
    ink: Ink


@dataclass(frozen=True, slots=True)
class Strip:
    """A picture seen along one axis.

    `pixels` is (3, bands, length) in grey levels: luma, and the differences of red and blue from it at half weight.
    `start` and `end` bound the part in view along the axis, `first` and `last` the bands in view.
    """

    pixels: Pixels
    across: int
    """Length of the other axis, which the bands divide."""
    start: int
    end: int
    first: int
    last: int

    @property
    def seen(self) -> Pixels:
        """The part in view, (3, bands, positions)."""
        return self.pixels[:, self.first : self.last, self.start : self.end]

    def within(self, start: int, end: int, low: int, high: int) -> Strip:
        """The part from `start` to `end` along the axis and `low` to `high` across it, whole bands only."""
        return replace(self.band(low, high), start=start, end=end)

    def band(self, low: int, high: int) -> Strip:
        """Only what lies from `low` to `high` across the axis, in whole bands (at least one)."""
        bands = self.pixels.shape[1]
        width = self.across / bands
        first = int(np.ceil(low / width - 0.05))
        last = int(np.floor(high / width + 0.05))
        return replace(self, first=min(first, bands - 1), last=max(last, first + 1))


def strip_of(image: Image.Image, *, axis: Literal["x", "y"]) -> Strip:
    """The strip of an RGB image along `axis`."""
    across, length = (image.height, image.width) if axis == "x" else (image.width, image.height)
    factor = max(1, across // _BANDS)
    reduced = image.reduce((1, factor) if axis == "x" else (factor, 1))
    pixels = np.asarray(reduced, dtype=np.float32)
    if axis == "y":
        pixels = pixels.transpose(1, 0, 2)
    # Chroma at half weight, because beside an edge JPEG smears colour more than brightness.
    luma = pixels @ _LUMA
    pixels = np.stack([luma, (pixels[..., 0] - luma) / 2, (pixels[..., 2] - luma) / 2])
    # The last band of an indivisible size is narrower than the rest and would break the arithmetic of bands.
    bands = across // factor
    return Strip(np.ascontiguousarray(pixels[:, :bands]), factor * bands, 0, length, 0, bands)


def border(strip: Strip, known: Sequence[Band] = ()) -> tuple[int, int, list[Band]]:
    """Where the picture begins and ends along the axis, inside plain bands that end in a straight edge; and these.

    A plain background is not such a band: it ends at a head or a shoulder, not along a straight line. A band like one
    of `known`, found on another side, needs hardly any edge, because a shirt may have the frame's colour.
    """
    seen = strip.seen
    # The first and last bands may lie on the frame's other two sides.
    aside = seen.shape[1] // 10
    seen = seen[:, aside : seen.shape[1] - aside]
    found: list[Band] = []
    begin = end = 0
    for _ in range(3):  # nested bands: a frame, a line around it, a mount
        before = begin, end
        for backwards in (False, True):
            rest = seen[:, :, begin : seen.shape[2] - end]
            width, ink = _band(rest[:, :, ::-1] if backwards else rest, known)
            begin, end = (begin, end + width) if backwards else (begin + width, end)
            found += [Band(width, ink)] if ink is not None else []
        if (begin, end) == before:
            break
    return strip.start + begin, strip.end - end, found


def _band(pixels: Pixels, known: Sequence[Band]) -> tuple[int, Ink | None]:
    """Width of the plain band at the start, soft edges included, and its colour; 0 and None when there is none.

    There may be words on the band, as below a captioned picture.
    """
    length = pixels.shape[2]
    limit = int(length * _WIDEST)
    if limit < 2:
        return 0, None
    start = _soft(pixels[:, :, : 2 * _REACH])
    ink = np.median(pixels[:, :, start : start + 2], axis=(1, 2))
    agreeing = np.abs(pixels[:, :, start : limit + 2 * _REACH] - ink[:, None, None]).max(axis=0) <= _SAME
    plain = agreeing.mean(axis=0) > 0.93
    thin = float((np.abs(pixels[:, :, start] - pixels[:, :, 0]).max(axis=0) > _SAME).mean()) >= 0.6
    if not plain[0] or plain.all():
        return (start, None) if thin else (0, None)
    ends = start + 1 + np.flatnonzero(plain[:-1] & ~plain[1:])
    inside = pixels[:, :, np.minimum(ends + _REACH, length - 1)]
    edges = (np.abs(inside - pixels[:, :, ends - 1]).max(axis=0) > _SAME).mean(axis=0)
    # The plain band may be interrupted by words. It ends at the last place that has an edge; words have none.
    last = int(np.flatnonzero(edges >= 0.6)[-1]) if (edges >= 0.6).any() else 0
    width, edge = int(ends[last]), float(edges[last])
    twin = any(
        np.abs(ink - other.ink).max() <= _SAME and abs(width - other.width) <= max(_REACH, other.width // 4)
        for other in known
    )
    if width > limit or edge < (0.05 if twin else 0.6):
        return (start, None) if thin else (0, None)
    return width + _soft(pixels[:, :, width : width + 2 * _REACH]), ink


def _soft(pixels: Pixels) -> int:
    """Width of the soft edge at the start: positions until neighbouring pixels are nearly equal."""
    still = np.median(np.abs(np.diff(pixels, axis=2)).max(axis=0), axis=0) < _STILL
    return int(np.argmax(still)) if still.any() else len(still)


def separator(strip: Strip) -> Cut | None:
    """The line that runs through the middle from end to end, or None."""
    gutter, seam = _gutter(strip), _seam(strip)
    if gutter is None or (seam is not None and seam[1] > gutter[1] + 0.25):
        return seam[0] if seam else None
    return gutter[0]


def _gutter(strip: Strip) -> tuple[Cut, float] | None:
    """The best run of positions of one colour near the middle, and a score of up to 1."""
    seen = strip.seen
    length = seen.shape[2]
    low, high = int(length * (0.5 - _OFF_CENTRE)), int(length * (0.5 + _OFF_CENTRE)) + 1
    inks = np.median(seen, axis=1)
    spread = (np.abs(seen - inks[:, None, :]).max(axis=0) <= _SAME).mean(axis=0)
    plain = spread >= 0.92
    best: tuple[int, int, float] | None = None
    position = low
    while position < high:
        if not plain[position]:
            position += 1
            continue
        ink = inks[:, position]
        begin = end = position
        while begin > 0 and plain[begin - 1] and np.abs(inks[:, begin - 1] - ink).max() <= _SAME:
            begin -= 1
        while end < length and plain[end] and np.abs(inks[:, end] - ink).max() <= _SAME:
            end += 1
        position = max(end, position + 1)
        if end - begin > length * _WIDEST or begin == 0 or end == length:
            continue
        edges = [
            float((np.abs(seen[:, :, at] - ink[:, None]).max(axis=0) > _SAME).mean())
            for at in (max(0, begin - _REACH), min(length - 1, end - 1 + _REACH))
        ]
        centre = abs((begin + end) / 2 / length - 0.5)
        score = min(edges) * 0.7 + max(edges) * 0.3 - centre
        if min(edges) >= 0.3 and (best is None or score > best[2]):
            best = (begin, end, score)
    if best is None:
        return None
    return Cut(strip.start + best[0], strip.start + best[1]), best[2]


def _seam(strip: Strip) -> tuple[Cut, float] | None:
    """The position near the middle with an edge in most bands of both halves; and the share of bands with the edge."""
    seen = strip.seen
    length = seen.shape[2]
    if length < 8 * _REACH:
        return None
    ahead = (seen[:, :, 2:-1] + seen[:, :, 3:]) / 2
    behind = (seen[:, :, :-3] + seen[:, :, 1:-2]) / 2
    step = np.abs(ahead - behind).max(axis=0)  # index i compares the pixels before and after position i + 2
    low, high = int(length * (0.5 - _OFF_CENTRE)) - 2, int(length * (0.5 + _OFF_CENTRE)) - 1
    # Steps that fine texture has anywhere are not an edge.
    least = _FAINT + (_SAME - _FAINT) * np.minimum(1.0, (ahead[0] + behind[0]) / (2 * _LIT))
    enough = np.maximum(least, 3.0 * float(np.median(step)))
    edged = step > enough
    middle = max(1, edged.shape[0] // 2)
    halves = np.minimum(edged[:middle].mean(axis=0), edged[middle:].mean(axis=0) if edged.shape[0] > 1 else 1.0)
    share = edged.mean(axis=0)
    # Among equal shares the steepest position wins, and then the most central one: a soft edge shows at several.
    strength = np.minimum(step / (4 * enough), 1.0).mean(axis=0)
    away = np.abs((np.arange(len(share)) + 2) / length - 0.5)
    score = share + strength - away
    score[(halves < 0.45) | (share < 0.6)] = -1
    score[:low], score[high:] = -1, -1
    at = int(np.argmax(score))
    if score[at] < 0:
        return None
    around = np.r_[share[max(0, at - 24) : max(0, at - 6)], share[at + 7 : at + 25]]
    if around.size and float(np.median(around)) > 0.5 * share[at]:
        return None
    return Cut(strip.start + at + 2, strip.start + at + 2), float(share[at])
