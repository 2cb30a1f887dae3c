"""The size at which an AVIF is coded, compared with the size that its container states.

They are equal in an honest file. libavif does not compare them: it decodes what the AV1 stream holds, up to 268
megapixels, and scales that to the size in the container. So 300 bytes that code 16x16 pixels could become 49
megapixels, and 268 coded megapixels could hide behind 16x16.
Sequence headers are those of the AV1 specification, version 1.0.0 with errata 1, section 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits, check_pixels
from imgpipe_orchestration.imaging.reading.boxes import Boxes, Size

_SEQUENCE_HEADER = 1
_ENOUGH = 400
"""Bytes of a sequence header in which its size ends at the latest: after 32 operating points of 89 bits each."""
_BLOCK = 64
"""Pixels to a multiple of which an encoder may round a side up."""
_IGNORED = b"free"
"""An item type that readers ignore."""
_TABLES = 4
"""How many `ipma` boxes libavif reads."""
_CONSTANT_LUMINANCE = {10: 9, 13: 12}
"""Matrix coefficients with constant luminance, and the same without it (H.273, table 4)."""
_MAJOR_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1"})
_LAYERS = 8
"""How many times smaller one layer of a picture may be than another: there are up to four, each half the next one.
The container states the size of one of them."""


def check_coded_size(data: bytes, limits: Limits) -> None:
    """Refuse an AVIF with a picture, tile or transparency that is not coded in the size stated for it.

    Raises:
        BadImage: the sizes disagree; names both.
        TooLarge: coded in more pixels than the limit, or in more parts than a picture needs.
    """
    most = limits.max_boxes
    parts = 0
    for stated, stream in Boxes(data, most).av1_pictures():
        for coded in coded_sizes(stream):
            parts += 1
            if parts > most:
                raise TooLarge(f"the avif is cut into more than {most:,} parts, which no picture needs")
            if coded:
                check_pixels(*coded, "avif", limits)
                _compare(stated, coded)


def readable(data: bytes, limits: Limits) -> bytes:
    """The AVIF in a form that Pillow and libavif accept; browsers accept more.

    libavif refuses two `ipma` boxes with equal flags, yet early encoders (cavif) wrote one box for each item. So each
    gets different flags, in bits without a meaning. Pillow knows four major brands. Any other is replaced by one that
    leaves it to the compatible brands whether this is a still picture or a sequence. Matrices of constant luminance,
    which libavif has no arithmetic for, become those without it: colours are a little off then, and the file is read.

    Raises:
        TooLarge: more boxes than a picture needs.
    """
    boxes = Boxes(data, limits.max_boxes)
    tables = list(boxes.associations())
    several = tables if 1 < len(tables) <= _TABLES else []
    matrices = [at for at in boxes.matrices() if int.from_bytes(data[at : at + 2]) in _CONSTANT_LUMINANCE]
    if not several and not matrices and data[8:12] in _MAJOR_BRANDS:
        return data
    changed = bytearray(data)
    for at in matrices:
        changed[at : at + 2] = _CONSTANT_LUMINANCE[int.from_bytes(data[at : at + 2])].to_bytes(2)
    for number, at in enumerate(several):
        changed[at + 2] = number
    if data[8:12] not in _MAJOR_BRANDS:
        changed[8:12] = b"mif1"
    return bytes(changed)


def without_exif(data: bytes) -> bytes:
    """The picture without its EXIF: libavif refuses the whole file where that is broken or empty.

    The item stays but its type changes to an ignored one, so no offset in the file changes.
    """
    changed = bytearray(data)
    for at in Boxes(data, DEFAULT_LIMITS.max_boxes).exif_types():
        changed[at : at + len(_IGNORED)] = _IGNORED
    return bytes(changed)


def _compare(stated: Size, coded: Size) -> None:
    for claim, real in zip(stated, coded, strict=True):
        if claim > real + _BLOCK or real > claim * _LAYERS + _BLOCK:
            raise BadImage(f"the avif claims {stated[0]}x{stated[1]} pixels but is coded in {coded[0]}x{coded[1]}")


def coded_sizes(stream: memoryview) -> Iterator[Size | None]:
    """For each OBU (unit of an AV1 stream): its size if it is a sequence header, else None."""
    at = 0
    while at < len(stream):
        head = stream[at]
        kind, at = head >> 3 & 15, at + (2 if head & 4 else 1)
        length = len(stream) - at
        if head & 2:
            length, at = _leb128(stream, at)
        yield _size(_Bits(stream[at : at + min(length, _ENOUGH)])) if kind == _SEQUENCE_HEADER else None
        at += length


def _leb128(stream: memoryview, at: int) -> tuple[int, int]:
    """A variable-length number of seven bits a byte, and the offset after it."""
    value = 0
    for place, byte in enumerate(stream[at : at + 8]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    return value, at + 8


class _Bits:
    """Reads bits from the highest to the lowest; zeros past the end."""

    def __init__(self, data: memoryview) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        value = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return value & ((1 << count) - 1)


def _size(bits: _Bits) -> Size:
    """Maximum width and height of a frame, which for a still picture are its width and height."""
    take = bits.take
    take(4)  # profile, still picture
    if take(1):  # reduced header, without timing
        take(5)
    else:
        _skip_timing(bits)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return take(width_bits) + 1, take(height_bits) + 1


def _skip_timing(bits: _Bits) -> None:
    take = bits.take
    delay_bits = 0
    if take(1):  # timing info
        take(64)
        if take(1):  # equal picture interval: a number as long as the zeros before it
            zeros = next((count for count in range(32) if take(1)), 0)
            take(zeros)
        if take(1):  # decoder model info
            delay_bits = take(5) + 1
            take(42)
    has_display_delay = take(1)
    for _ in range(take(5) + 1):
        take(12)
        if take(5) > 7:
            take(1)
        if delay_bits and take(1):
            take(2 * delay_bits + 1)
        if has_display_delay and take(1):
            take(4)
