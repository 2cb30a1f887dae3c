"""PNGs in which something that the picture does not need is broken, or larger than Pillow takes."""

from __future__ import annotations

import zlib
from itertools import dropwhile, takewhile

from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS
from imgpipe_orchestration.imaging.reading.png_chunks import CRITICAL, chunks, colour_space_chunks, is_intact

_PIXELS, _END = b"IDAT", b"IEND"
_NEEDED = CRITICAL | {_END}
_FRAMES = frozenset({b"fcTL", b"fdAT"})
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_FEWEST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"eXIf": 8, b"acTL": 8, b"fcTL": 26}
"""Bytes of the other chunks that are read: what the colours mean, which way up the picture is, and its frames."""
_TRANSPARENT = {0: 2, 2: 6, 3: 1}
"""The same of what is transparent, by the kind of colour."""
_DEFLATE = b"\0"
"""The only way in which a profile is packed."""


def without_extras(data: bytes) -> bytes:
    """The same picture without texts and profile, and without what has a wrong checksum or is cut short: as browsers
    read it. `profile` gives the profile."""
    view = memoryview(data)
    kept = [view[:8]]
    for kind, start, end in chunks(data):
        few = _TRANSPARENT.get(data[25]) if kind == b"tRNS" else _FEWEST.get(kind)
        sound = few is not None and few <= end - start and is_intact(view, start, end)
        if kind in _NEEDED or sound:
            kept.append(view[start - 8 : end + 4])
    return b"".join(kept)


def up_to_pixels(data: bytes) -> bytes:
    """The same picture without what stands behind its pixels and is no frame: it says nothing, and Pillow refuses all
    of the picture where it is broken."""
    since_pixels = dropwhile(lambda part: part[0] != _PIXELS, chunks(data))
    behind = [part for part in takewhile(lambda part: part[0] != _END, since_pixels) if part[0] != _PIXELS]
    frames = [(start - 8, end + 4) for kind, start, end in behind if kind in _FRAMES]
    if len(frames) == len(behind):
        return data
    view = memoryview(data)
    return b"".join((view[: behind[0][1] - 8], *(view[start:end] for start, end in frames), _IEND))


def profile(data: bytes) -> bytes:
    """The first colour profile; empty where there is none, a broken one, or a larger one than is used. Pillow takes the
    last one, and refuses the whole picture for one of a megabyte."""
    name, _, packed = colour_space_chunks(data).get(b"iCCP", b"").partition(b"\0")
    if not name or packed[:1] != _DEFLATE:
        return b""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(packed[1:], DEFAULT_LIMITS.max_icc_bytes)
    except zlib.error:
        return b""
    return b"" if unpacking.unconsumed_tail else found
