"""Boxes and sizes: the arithmetic that must never round over an edge."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

PixelBox = tuple[int, int, int, int]
"""left, top, right, bottom in whole pixels, right and bottom exclusive (Pillow's convention)."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in fractions of width and height of the upright image, clipped to it.

    Fractions survive every resize, so one box serves all sizes.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        for name in ("left", "top", "right", "bottom"):
            object.__setattr__(self, name, min(1.0, max(0.0, float(getattr(self, name)))))
        if self.right < self.left or self.bottom < self.top:
            raise ValueError(f"a box needs left <= right and top <= bottom, got {self}")

    @classmethod
    def of_pixels(cls, box: PixelBox, width: int, height: int) -> Self:
        """The same rectangle as fractions of a `width` x `height` image."""
        return cls(box[0] / width, box[1] / height, box[2] / width, box[3] / height)

    @property
    def area(self) -> float:
        """Share of the image, 0 to 1."""
        return (self.right - self.left) * (self.bottom - self.top)


WHOLE = Box(0, 0, 1, 1)


def union(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of them (at least one)."""
    boxes = list(boxes)
    return Box(
        min(b.left for b in boxes),
        min(b.top for b in boxes),
        max(b.right for b in boxes),
        max(b.bottom for b in boxes),
    )


def fit_within(width: int, height: int, max_width: int, max_height: int) -> tuple[int, int]:
    """The largest size of the same shape inside `max_width` x `max_height`, never larger than the image.

    Each side is at least 1 pixel, so that 4000x3 within 480x480 is 480x1 and not 480x0.
    """
    if width <= max_width and height <= max_height:
        return width, height
    if width * max_height >= height * max_width:
        return max_width, max(1, round(height * max_width / width))
    return max(1, round(width * max_height / height)), max_height
