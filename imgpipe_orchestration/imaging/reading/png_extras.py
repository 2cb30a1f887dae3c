"""Optional chunks of a PNG: leaving out broken ones, and reading the colour profile as browsers do."""

from __future__ import annotations

import zlib
from itertools import dropwhile

from imgpipe_orchestration.imaging.limits import DEFAULT_LIMITS
from imgpipe_orchestration.imaging.reading.png_chunks import CRITICAL, END, chunks, colour_space_chunks, is_intact

_PIXELS = b"IDAT"
_NEEDED = CRITICAL | {END}
_FRAMES = frozenset({b"fcTL", b"fdAT"})
_IEND = b"\0\0\0\0IEND\xaeB`\x82"
_FEWEST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"eXIf": 8, b"acTL": 8, b"fcTL": 26}
"""Fewest bytes of the optional chunks that are read: colour space, orientation and animation."""
_TRANSPARENT = {0: 2, 2: 6, 3: 1}
"""Fewest bytes of tRNS, by colour type."""
_DEFLATE = b"\0"
"""The only compression method of a profile."""


def without_extras(data: bytes) -> bytes:
    """The PNG without texts and profile, and without optional chunks that are broken, as browsers read it.

    `profile` gives the profile.
    """
    view = memoryview(data)
    kept = [view[:8]]
    for kind, start, end in chunks(data):
        few = _TRANSPARENT.get(data[25]) if kind == b"tRNS" else _FEWEST.get(kind)
        sound = few is not None and few <= end - start and is_intact(view, start, end)
        if kind in _NEEDED or sound:
            kept.append(view[start - 8 : end + 4])
    return b"".join(kept)


def up_to_pixels(data: bytes) -> bytes:
    """The PNG without chunks after the pixels, except frames: they do not count, and Pillow refuses the whole picture
    if one of them is broken."""
    since_pixels = dropwhile(lambda part: part[0] != _PIXELS, chunks(data))
    behind = [part for part in since_pixels if part[0] not in (_PIXELS, END)]
    frames = [(start - 8, end + 4) for kind, start, end in behind if kind in _FRAMES]
    if len(frames) == len(behind):
        return data
    view = memoryview(data)
    return b"".join((view[: behind[0][1] - 8], *(view[start:end] for start, end in frames), _IEND))


def profile(data: bytes) -> bytes:
    """The first colour profile; empty where there is none, or it is broken or past the limit.

    Pillow takes the last one, and refuses the whole picture if it is larger than a megabyte.
    """
    name, _, packed = colour_space_chunks(data).get(b"iCCP", b"").partition(b"\0")
    if not name or packed[:1] != _DEFLATE:
        return b""
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(packed[1:], DEFAULT_LIMITS.max_icc_bytes)
    except zlib.error:
        return b""
    return b"" if unpacking.unconsumed_tail else found
