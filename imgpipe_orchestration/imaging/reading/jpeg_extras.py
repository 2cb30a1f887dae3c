"""Optional segments of a JPEG: leaving out broken ones, and reading the colour profile as browsers do."""

from __future__ import annotations

from imgpipe_orchestration.imaging.reading.jpeg_segments import segments

_PROFILE = (0xE2, b"ICC_PROFILE\0")
_FEWEST = {(0xE0, b"JFIF"): 14, (0xEE, b"Adobe"): 12, _PROFILE: 14}
"""Fewest bytes of the segments that libjpeg reads, by marker and name; it ignores shorter ones."""


def without_extras(data: bytes) -> bytes:
    """The JPEG without segments that are too short to be valid: Pillow refuses the whole file for one."""
    view = memoryview(data)
    kept, at = [], 0
    for marker, start, end in segments(data):
        if any(_is(data, start, kind, marker) and end - start < few for kind, few in _FEWEST.items()):
            kept.append(view[at : start - 4])
            at = end
    return b"".join((*kept, view[at:]))


def profile(data: bytes) -> bytes:
    """The colour profile, put together as browsers do; empty where there is none or a part of it is missing.

    Pillow ignores a profile after the frame header or one that occurs twice, and accepts one whose parts disagree on
    how many parts there are.
    """
    parts: dict[int, bytes] = {}
    totals = set()
    for marker, start, end in segments(data):
        if not _is(data, start, _PROFILE, marker) or end - start < _FEWEST[_PROFILE]:
            continue
        number, total = data[start + 12 : start + 14]
        parts.setdefault(number, data[start + 14 : end])
        totals.add(total)
    whole = totals == {len(parts)} and parts.keys() == set(range(1, len(parts) + 1))
    return b"".join(parts[number] for number in sorted(parts)) if whole else b""


def _is(data: bytes, start: int, kind: tuple[int, bytes], marker: int) -> bool:
    return marker == kind[0] and data.startswith(kind[1], start)
