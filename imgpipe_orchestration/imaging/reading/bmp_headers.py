"""BMPs whose header Pillow does not know or whose palette it misreads; and a BMP's colour profile."""

from __future__ import annotations

import struct

from imgpipe_orchestration.imaging.limits import Limits

_KNOWN = frozenset({40, 52, 56, 64, 108, 124})
"""Lengths of the headers that Pillow reads, besides one of 12 bytes that has no number of colours."""
_OS2 = range(16, 64)
"""Lengths of OS/2 2.x headers. They may end after any field; missing fields are 0."""
_PLAIN = 40
"""Length of BITMAPINFOHEADER."""
_ALIKE = frozenset({0, 1, 2})
"""Compressions with the same numbers in the headers of OS/2 and of Windows."""
_WITH_PALETTE = frozenset({1, 2, 4, 8})
"""Bits per pixel."""


def readable(data: bytes, _limits: Limits) -> bytes:
    """The BMP with a header that Pillow reads and a palette of exactly as many colours as the pixels' bits can name.

    Pillow refuses a longer palette, and misreads shorter ones: a black and white one as 1-bit pixels, and one of three
    nearly black colours as grey levels. Missing colours become black, as in browsers.
    """
    if len(data) < 14 + _PLAIN:
        return data
    start, length = struct.unpack_from("<II", data, 10)
    header, behind = data[14 : 14 + length], 14 + length
    if length in _OS2 and length not in _KNOWN:
        header = _PLAIN.to_bytes(4, "little") + header[4:_PLAIN].ljust(_PLAIN - 4, b"\0")
        if int.from_bytes(header[16:20], "little") not in _ALIKE:
            return data
    elif length not in _KNOWN:
        return data
    bits, said = *struct.unpack_from("<H", header, 14), *struct.unpack_from("<I", header, 32)
    most = 1 << bits if bits in _WITH_PALETTE else 0
    if length in _KNOWN and (not most or (said in (0, most) and start >= behind + 4 * most)):
        return data
    table = data[behind:start]
    if most:
        stored = 4 * min(said or most, most)
        table = data[behind : behind + stored].ljust(4 * most, b"\0")
        start = max(start, behind + stored)
        header = header[:32] + most.to_bytes(4, "little") + header[36:]
    return b"".join((data[:10], (14 + len(header) + len(table)).to_bytes(4, "little"), header, table, data[start:]))


def profile(data: bytes) -> bytes:
    """The embedded colour profile (BITMAPV5HEADER, PROFILE_EMBEDDED); empty where there is none."""
    head = data[14:138]
    if len(head) < 124 or int.from_bytes(head[:4], "little") < 124 or head[56:60] != b"DEBM":
        return b""
    at, length = 14 + int.from_bytes(head[112:116], "little"), int.from_bytes(head[116:120], "little")
    return data[at : at + length]
