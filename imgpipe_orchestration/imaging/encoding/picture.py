"""A picture to be encoded: cut when it is first needed, and the reference that its files are scored against."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.colour.alpha import GREY, WHITE, Ground, flattened, ground_of
from imgpipe_orchestration.imaging.encoding import excerpt
from imgpipe_orchestration.imaging.encoding.drawing import has_few_colours, is_drawn
from imgpipe_orchestration.imaging.encoding.ssimulacra2 import Reference
from imgpipe_orchestration.imaging.opencv import cv2

_SMALLEST_SIDE = 32
"""Pixels of a side below which the score lacks its coarse scales: what is smaller is scored repeated, in mirrors."""
TRIED = 1_450_000
"""Pixels above which a photograph is tried by its excerpt."""
_AVIF = b"ftypavif"
"""What these files have at byte 4."""


class LazyImage:
    """An image of known size that is made by whichever thread asks for it first; others wait for it.

    So cutting is spread over the encoders' threads, and an encoder can start as soon as its own picture is ready.
    """

    def __init__(self, size: tuple[int, int], make: Callable[[], Image.Image]) -> None:
        self.size = size
        self._make = make
        self._lock = Lock()
        self._image: Image.Image | None = None

    def get(self) -> Image.Image:
        with self._lock:
            if self._image is None:
                self._image = self._make()
            return self._image


class Picture:
    """A picture to encode; several sizes of a small original are often the same one.

    Args:
        whole: it shows all of the original and is not a crop.
        scale: its pixels per pixel of the original, along a side.
        target: the score to reach.
        flattered: points that its files score better than those of the picture that it stands for.
    """

    def __init__(self, image: LazyImage, *, whole: bool, scale: float, target: float, flattered: float = 0.0) -> None:
        self.whole = whole
        self.scale = scale
        self.target = target
        self.pixels = image.size[0] * image.size[1]
        self._flattered = flattered
        self._image = image
        self._lock = Lock()
        self._reference: Reference | None = None

    @property
    def image(self) -> Image.Image:
        return self._image.get()

    @cached_property
    def has_few_colours(self) -> bool:
        return has_few_colours(self.image)

    @property
    def tried(self) -> Picture:
        """The picture that tries are made of: itself, or of a large photograph an excerpt that is as hard to encode.
        Excerpts of text and drawings say less."""
        return self._excerpt or self

    @cached_property
    def _excerpt(self) -> Picture | None:
        if self.pixels <= TRIED or is_drawn(self.image):
            return None
        source = self._image  # not this picture, which a cycle would keep until the garbage collector runs
        size = (excerpt.side_of(source.size[0]), excerpt.side_of(source.size[1]))
        cut = LazyImage(size, lambda: Image.fromarray(excerpt.excerpt_of(np.asarray(source.get()))))
        return Picture(cut, whole=False, scale=self.scale, target=self.target, flattered=excerpt.FLATTERED)

    @cached_property
    def _ground(self) -> Ground:
        return ground_of(self.image, GREY) if self.image.mode == "RGBA" else WHITE

    def score(self, data: bytes) -> float:
        """SSIMULACRA2 of an encoded file of this picture; transparency is laid over grey, or what shows it better."""
        return self._prepared().score(_large_enough(self._decoded(data))) - self._flattered

    def _decoded(self, data: bytes) -> NDArray[np.uint8]:
        if self.image.mode == "RGB" and not data.startswith(_AVIF, 4):
            # OpenCV reads JPEG and WebP in less time than Pillow, to the same pixels.
            return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)
        with Image.open(io.BytesIO(data)) as file:
            return np.asarray(flattened(file, self._ground))

    def _prepared(self) -> Reference:
        with self._lock:  # the formats' searches run at once, and one preparation serves them all
            if self._reference is None:
                pixels = _large_enough(np.asarray(flattened(self.image, self._ground)))
                self._reference = Reference(pixels, sampled=True)
            return self._reference


def _large_enough(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    lacking = [max(0, _SMALLEST_SIDE - side) for side in pixels.shape[:2]]
    return np.pad(pixels, [*((0, more) for more in lacking), (0, 0)], mode="symmetric") if any(lacking) else pixels
