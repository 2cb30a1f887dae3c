"""The byte range in a `Range` header (RFC 9110, section 14)."""

from __future__ import annotations

import re

_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE | re.ASCII)


class Unsatisfiable(ValueError):
    """The range is outside of the image, which has `size` bytes (416)."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The image has {size} bytes.")
        self.size = size


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of the requested part; None for the whole.

    Several ranges, other units and invalid headers are ignored, as the RFC allows; the answer is then a 200.

    Raises:
        Unsatisfiable: no byte of the range exists.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:  # the last N bytes
        if _number(last) == 0:
            raise Unsatisfiable(size)
        return max(0, size - _number(last)), size - 1
    start = _number(first)
    end = _number(last) if last else size - 1
    if end < start and last:
        return None  # an invalid range
    if start >= size:
        raise Unsatisfiable(size)
    return start, min(end, size - 1)


def _number(digits: str) -> int:
    """The number, at most 19 digits of it, which is past any image; Python refuses thousands of digits."""
    return int(digits.lstrip("0")[:19] or "0")
