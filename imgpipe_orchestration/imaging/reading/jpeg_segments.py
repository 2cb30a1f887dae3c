"""The segments and markers of a JPEG."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

START_OF_SCAN, QUANTIZATION, APP1, APP13 = 0xDA, 0xDB, 0xE1, 0xED
END_OF_IMAGE = 0xD9
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)
"""The next marker; skips stuffed bytes, fill bytes and restart markers."""
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xDA)})
"""Markers that are not followed by a length."""


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The marker of each segment before the first scan, and the offsets at which its content begins and ends.

    A stray byte between two segments counts as a segment with marker 0.
    """
    at = 2
    while at + 4 <= len(data):
        kind = data[at + 1]
        if data[at] != 0xFF or kind in (0x00, 0xFF):
            yield 0, at, at + 1
            at += 1
        elif kind == START_OF_SCAN:
            return
        else:
            end = at + (2 if kind in _WITHOUT_LENGTH else 2 + int.from_bytes(data[at + 2 : at + 4]))
            yield kind, at + 4, end
            at = end


def has_end(data: bytes) -> bool:
    """Whether the picture's end marker is there; more may stand behind it."""
    return END_OF_IMAGE in _all_markers(data)


def markers(data: bytes) -> Iterator[int]:
    """The markers that a decoder meets before the end of the picture.

    Bytes that look like markers inside a segment, or in a video that a phone appended, are skipped.
    """
    return takewhile(lambda kind: kind != END_OF_IMAGE, _all_markers(data))


def _all_markers(data: bytes) -> Iterator[int]:
    """The markers up to that of the end, and that one."""
    at = 2
    while marker := _MARKER.search(data, at):
        kind, at = data[marker.end() - 1], marker.end()
        yield kind
        if kind == END_OF_IMAGE:
            return
        if kind not in _WITHOUT_LENGTH:
            at += int.from_bytes(data[at : at + 2])
