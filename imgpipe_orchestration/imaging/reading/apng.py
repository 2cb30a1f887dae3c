"""Animated PNGs whose default image (for programs that show no animations) is not one of their frames.

Browsers show the first frame and never the default image, which is often just a note that the file is animated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import takewhile

from imgpipe_orchestration.imaging.limits import Limits
from imgpipe_orchestration.imaging.reading.png_chunks import chunks, is_intact

_CONTROL = 26
"""Bytes of an fcTL chunk: sequence number, width, height, offsets, delay and how it is drawn."""
_NUMBERED = frozenset({b"fcTL", b"fdAT"})
"""Chunks that begin with a sequence number."""


def readable(data: bytes, _limits: Limits) -> bytes:
    """The PNG with its first frame in place of the default image.

    Unchanged where the default image is the first frame, or where the first frame is broken or smaller than the image.
    """
    parts = list(chunks(data))
    kinds = [kind for kind, _, _ in parts]
    if b"acTL" not in kinds or b"IDAT" not in kinds or b"fcTL" not in kinds:
        return data
    pixels, control = kinds.index(b"IDAT"), kinds.index(b"fcTL")
    frame = list(takewhile(lambda part: part[0] == b"fdAT", parts[control + 1 :]))
    _, start, end = parts[control]
    covers = end - start == _CONTROL and data[start : start + 20] == bytes(4) + data[16:24] + bytes(8)
    in_turn = [int.from_bytes(data[start : start + 4]) for _, start, _ in frame] == [*range(1, len(frame) + 1)]
    if control < pixels or kinds.index(b"acTL") > pixels or not (frame and covers and in_turn):
        return data
    first = _chunk(b"IDAT", b"".join(data[start + 4 : end] for _, start, end in frame))
    rest = _renumbered(data, parts[control + 1 + len(frame) :], len(frame))
    return b"".join((data[: parts[pixels][1] - 8], data[start - 8 : end + 4], first, *rest))


def _renumbered(data: bytes, parts: Sequence[tuple[bytes, int, int]], by: int) -> Iterator[bytes]:
    """The chunks, with sequence numbers lowered by `by`. Broken ones stay as they are."""
    view = memoryview(data)
    for kind, start, end in parts:
        number = int.from_bytes(data[start : start + 4])
        if kind in _NUMBERED and number >= by and end - start >= 4 and is_intact(view, start, end):
            yield _chunk(kind, (number - by).to_bytes(4) + data[start + 4 : end])
        else:
            yield data[start - 8 : end + 4]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join((len(content).to_bytes(4), kind, content, zlib.crc32(kind + content).to_bytes(4)))
