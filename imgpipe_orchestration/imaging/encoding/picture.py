"""A picture to be encoded, and how its files are scored."""

from __future__ import annotations

import io
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour.alpha import GREY, WHITE, Ground, flattened, ground_of
from imgpipe_orchestration.imaging.encoding.drawing import has_few_colours, is_drawn
from imgpipe_orchestration.imaging.encoding.excerpt import FLATTERED, excerpt_of
from imgpipe_orchestration.imaging.encoding.ssimulacra2 import Reference
from imgpipe_orchestration.imaging.opencv import cv2

_SMALLEST_SIDE = 32
"""Pixels of a side below which the score lacks its coarse scales: what is smaller is scored repeated, in mirrors."""
_TRIED = 1_450_000
"""Pixels above which a photograph is tried by its excerpt."""
_AVIF = b"ftypavif"
"""What these files have at byte 4."""


class Picture:
    """A picture to encode; several sizes of a small original are often the same one.

    Args:
        whole: it shows all of the original and is not a crop.
        scale: its pixels per pixel of the original, along a side.
        target: the score to reach.
        flattered: points that its files score better than those of the picture that it stands for.
    """

    def __init__(self, image: Image.Image, *, whole: bool, scale: float, target: float, flattered: float = 0.0) -> None:
        self.whole = whole
        self.scale = scale
        self.target = target
        self.pixels = image.width * image.height
        self.image = image
        self._flattered = flattered

    @cached_property
    def has_few_colours(self) -> bool:
        return has_few_colours(self.image)

    @cached_property
    def excerpt(self) -> Picture | None:
        """What the tries of a large photograph are made of, as hard to encode; None for others. Excerpts of text and
        drawings say less."""
        if self.pixels <= _TRIED or is_drawn(self.image):
            return None
        cut = Image.fromarray(excerpt_of(np.asarray(self.image)))
        return Picture(cut, whole=False, scale=self.scale, target=self.target, flattered=FLATTERED)

    @cached_property
    def _ground(self) -> Ground:
        return ground_of(self.image, GREY) if self.image.mode == "RGBA" else WHITE

    def score(self, data: bytes) -> float:
        """SSIMULACRA2 of an encoded file of this picture; transparency is laid over grey, or what shows it better."""
        return self._reference.score(_large_enough(self._decoded(data))) - self._flattered

    def _decoded(self, data: bytes) -> NDArray[np.uint8]:
        if self.image.mode == "RGB" and not data.startswith(_AVIF, 4):
            # OpenCV reads JPEG and WebP in less time than Pillow, to the same pixels.
            return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)
        with Image.open(io.BytesIO(data)) as file:
            return np.asarray(flattened(file, self._ground))

    @cached_property
    def _reference(self) -> Reference:
        return Reference(_large_enough(np.asarray(flattened(self.image, self._ground))), sampled=True)


def _large_enough(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lacking = [max(0, _SMALLEST_SIDE - side) for side in pixels.shape[:2]]
    return np.pad(pixels, [*((0, more) for more in lacking), (0, 0)], mode="symmetric") if any(lacking) else pixels
