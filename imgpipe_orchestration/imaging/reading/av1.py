"""The size at which an AVIF is coded, against the size that its container states.

They are equal in an honest file. libavif looks at neither: it decodes what the AV1 stream holds, up to 268 megapixels,
and scales it to what the container states, so that 16x16 pixels of 300 bytes became 49 megapixels, and the other way
round. Sequence headers are those of the AV1 specification, version 1.0.0 with errata 1, section 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS, Limits, check_pixels
from imgpipe_orchestration.imaging.reading.boxes import Boxes, Size

_SEQUENCE_HEADER = 1
_ENOUGH = 400
"""Bytes that hold the longest sequence header up to its size: 32 operating points of 89 bits each."""
_BLOCK = 64
"""Pixels that an encoder may round a side by."""
_NOTHING = b"free"
_TABLES = 4
"""As many libavif reads."""
_MAJOR_BRANDS = frozenset({b"avif", b"avis", b"mif1", b"msf1"})
_LAYERS = 8
"""A picture in layers states the size of one of them; there are up to four, each usually half of the next one."""


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
    """The same for Pillow and libavif, which refuse what browsers read.

    libavif wants no two tables of associations with the same flags; early encoders wrote one for each item (cavif).
    Here each gets flags of its own, in bits that mean nothing. Pillow wants one of four major brands; it gets one that
    leaves the choice between picture and film to the others.

    Raises:
        TooLarge: more boxes than a picture needs.
    """
    tables = list(Boxes(data, limits.max_boxes).associations())
    several = tables if 1 < len(tables) <= _TABLES else []
    if not several and data[8:12] in _MAJOR_BRANDS:
        return data
    changed = bytearray(data)
    for number, at in enumerate(several):
        changed[at + 2] = number
    if data[8:12] not in _MAJOR_BRANDS:
        changed[8:12] = b"mif1"
    return bytes(changed)


def without_exif(data: bytes) -> bytes:
    """The same picture without its EXIF, for which libavif refuses all of it where it is broken or empty. Its item
    stays, as one of an unknown kind: no place in the file changes."""
    changed = bytearray(data)
    for at in Boxes(data, DEFAULT_LIMITS.max_boxes).exif_kinds():
        changed[at : at + len(_NOTHING)] = _NOTHING
    return bytes(changed)


def _compare(stated: Size, coded: Size) -> None:
    for claim, real in zip(stated, coded, strict=True):
        if claim > real + _BLOCK or real > claim * _LAYERS + _BLOCK:
            raise BadImage(f"the avif claims {stated[0]}x{stated[1]} pixels but is coded in {coded[0]}x{coded[1]}")


def coded_sizes(stream: memoryview) -> Iterator[Size | None]:
    """The size in each of a stream's sequence headers, None for each other part."""
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
    """A number of seven bits a byte, and where what follows it begins."""
    value = 0
    for place, byte in enumerate(stream[at : at + 8]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    return value, at + 8


class _Bits:
    """Bits from the highest on; zeros past the end."""

    def __init__(self, data: memoryview) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    def take(self, count: int) -> int:
        self._left -= count
        value = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return value & ((1 << count) - 1)


def _size(bits: _Bits) -> Size:
    """Largest width and height of a frame, which are those of a still picture."""
    take = bits.take
    take(4)  # profile, still picture
    if take(1):  # a header without anything about time
        take(5)
    else:
        _skip_times(bits)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    return take(width_bits) + 1, take(height_bits) + 1


def _skip_times(bits: _Bits) -> None:
    take = bits.take
    delay_bits = 0
    if take(1):  # timing
        take(64)
        if take(1):  # equal intervals, whose number is as long as the zeros before it
            zeros = next((count for count in range(32) if take(1)), 0)
            take(zeros)
        if take(1):  # a model of the decoder
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
