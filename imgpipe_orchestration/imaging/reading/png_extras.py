"""PNGs in which something that the picture does not need is broken, or larger than Pillow takes."""

from __future__ import annotations

import zlib

from imgpipe_orchestration.imaging.reading.parts import PICTURE, png_parts

_NEEDED = PICTURE | {b"tRNS", b"acTL", b"fcTL", b"IEND"}
_FEWEST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"eXIf": 8}
"""Bytes of the other chunks that are read: what the colours mean, and which way up the picture is."""


def without_extras(data: bytes) -> bytes:
    """The same picture without texts and profile, and without what has a wrong checksum or is cut short: as browsers
    read it. `profile` gives the profile."""
    view = memoryview(data)
    kept = [view[:8]]
    for kind, start, end in png_parts(data):
        few = _FEWEST.get(kind)
        sound = few is not None and few <= end - start and _is_intact(view, start, end)
        if kind in _NEEDED or sound:
            kept.append(view[start - 8 : end + 4])
    return b"".join(kept)


def profile(data: bytes, most: int) -> bytes:
    """The colour profile; empty where there is none, a broken one, or one of more bytes than `most`. Pillow refuses
    the whole picture for one of a megabyte."""
    at = next(((start, end) for kind, start, end in png_parts(data) if kind == b"iCCP"), None)
    if at is None or not _is_intact(memoryview(data), *at):
        return b""
    packed = data[slice(*at)].partition(b"\0")[2][1:]  # behind its name and the way it is packed, which is always 0
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(packed, most)
    except zlib.error:
        return b""
    return b"" if unpacking.unconsumed_tail else found


def _is_intact(view: memoryview, start: int, end: int) -> bool:
    return zlib.crc32(view[start - 4 : end]) == int.from_bytes(view[end : end + 4])
