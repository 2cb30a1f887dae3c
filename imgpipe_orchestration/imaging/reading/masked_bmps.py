"""BMPs whose header has a bit mask for each channel (BI_BITFIELDS, BI_ALPHABITFIELDS).

Pillow knows eleven of the many possible masks, and ignores the transparency of 16-bit pixels.
"""

from __future__ import annotations

import functools
import operator
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

_BITFIELDS, _ALPHA_BITFIELDS = 3, 6
_HEADERS = frozenset({40, 52, 56, 108, 124})
"""Lengths of Windows' headers; in those of OS/2 the same numbers mean other compressions."""
_FIRST_WITH_ALPHA = 56
"""Length of the shortest header that includes an alpha mask."""
_MASKS = slice(54, 70)
"""Masks for red, green, blue and alpha: after the shortest header, or at the same place within a longer one."""
_AT_ONCE = 1 << 18
"""Pixels that are unpacked at a time: all at once would take twice the picture's memory."""


@dataclass(frozen=True, slots=True)
class _Field:
    """The bits of a pixel that hold one channel."""

    low: int
    """Number of the lowest of them."""
    bits: int

    @classmethod
    def of(cls, mask: int) -> _Field:
        return cls(max((mask & -mask).bit_length() - 1, 0), mask.bit_count())

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1 << self.low

    def levels(self, pixels: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """The channel as 0 to 255, as in browsers: the upper 8 of more bits; fewer are scaled to 255."""
        spare = max(self.bits - 8, 0)
        found = pixels >> (self.low + spare) & ((1 << self.bits - spare) - 1)
        if 0 < self.bits < 8:
            most = (1 << self.bits) - 1
            found = ((np.arange(most + 1, dtype=np.uint32) * 255 + most // 2) // most)[found]
        return found.astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Masks:
    """How a header describes the pixels."""

    size: tuple[int, int]
    bits: int
    """Per pixel, 16 or 32."""
    fields: tuple[_Field, ...]
    """Red, green and blue, and alpha where there is one."""
    start: int
    """Offset of the pixels in the file."""
    downwards: bool
    """Whether the first row is the top one."""

    @property
    def stride(self) -> int:
        """Bytes of a row, a multiple of four."""
        return (self.size[0] * self.bits + 31) // 32 * 4

    @property
    def mode(self) -> str:
        return "RGB" if len(self.fields) == 3 else "RGBA"


def masks_of(data: bytes) -> Masks | None:
    """The masks in a header; None where it has none, or where they have gaps, overlap or are empty."""
    if len(data) < _MASKS.stop:
        return None
    start, header, width, height, _, bits, kind = struct.unpack_from("<10xIIiiHHI", data)
    if header not in _HEADERS or kind not in (_BITFIELDS, _ALPHA_BITFIELDS) or bits not in (16, 32):
        return None
    has_alpha = header >= _FIRST_WITH_ALPHA or kind == _ALPHA_BITFIELDS
    if start < max(14 + header, _MASKS.stop if has_alpha else _MASKS.stop - 4):
        return None
    numbers = [number & ((1 << bits) - 1) for number in struct.unpack("<4I", data[_MASKS])]
    masks = numbers if has_alpha and numbers[3] else numbers[:3]
    fields = tuple(map(_Field.of, masks))
    have_gaps = [field.mask for field in fields] != masks
    if have_gaps or sum(masks) != functools.reduce(operator.or_, masks) or not any(masks[:3]):
        return None
    return Masks((width, abs(height)), bits, fields, start, height < 0)


class MaskedBmp(ImageFile.ImageFile):
    """A BMP with masks; used in place of Pillow's class.

    Raises:
        SyntaxError: no usable masks.
    """

    format = "BMP"
    format_description = "Windows Bitmap"

    def _open(self) -> None:
        masks = masks_of(self.fp.read(_MASKS.stop)) if self.fp else None
        if not masks:
            raise SyntaxError("no usable masks")
        self._size, self._mode = masks.size, masks.mode
        self.tile = [ImageFile._Tile("bmp_masks", (0, 0, *masks.size), masks.start, (masks.mode, masks.stride, masks))]


class BmpMasks(ImageFile.PyDecoder):
    """Unpacks pixels by their masks."""

    _pulls_fd = True

    def decode(self, buffer: Image.DecoderInput) -> tuple[int, int]:
        """Set all pixels.

        Raises:
            OSError: cut short.
        """
        masks: Masks = self.args[2]
        image: Any = self.im
        width, height = masks.size
        together = max(_AT_ONCE // width, 1)
        for first in range(0, height, together):
            rows = min(together, height - first)
            length = rows * masks.stride
            stored = self.fd.read(length) if self.fd else b""
            if len(stored) < length:
                raise OSError("image file is truncated")
            pixels = np.frombuffer(stored, f"<u{masks.bits // 8}").reshape(rows, -1)[:, :width].astype(np.uint32)
            levels = np.stack([field.levels(pixels) for field in masks.fields], axis=-1)
            top = first if masks.downwards else height - first - rows
            band = Image.fromarray(levels if masks.downwards else levels[::-1])
            image.paste(band.im, (0, top, width, top + rows))
        return -1, 0
