"""Which of the available formats suits an `Accept` header best (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from imgpipe_orchestration.imaging.formats import MIME_OF

MODERN = frozenset({"avif", "webp"})
"""Formats that are sent only to clients that name them or refuse all others, because clients that show neither send
`image/*` and `*/*`."""
ORDER = tuple(MIME_OF)
"""Our preference among formats that the client accepts equally."""
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"?')
"""A quoted parameter, whose commas and semicolons are no separators. The closing quote is optional, or a header full of
quotes would be searched again from each of them."""
LONGEST_KEPT = 512
"""Longest header whose parsed form is cached, so that strangers cannot fill the memory."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The format a client gets, and why."""

    format: str
    reason: str


def choose(accept: str | None, available: tuple[str, ...]) -> Choice:
    """The best of `available` for this client; JPEG or PNG, and not a 406, for one that accepts none of them."""
    return (_remembered if len(accept or "") <= LONGEST_KEPT else _choose)(accept or "", available)


def _choose(accept: str, available: tuple[str, ...]) -> Choice:
    ranges = parse(accept)
    ranked = [name for name in ORDER if name in available]
    best = max(ranked, key=lambda name: (quality(name, ranges), -ranked.index(name)))
    liked = quality(best, ranges)
    if liked > 0:
        return Choice(best, f"the client accepts {MIME_OF[best]} with q={liked:g}; among equals AVIF, WebP, JPEG, PNG")
    # WebP before AVIF, as more programs show it.
    other = next((name for name in reversed(ranked) if _by_wildcard(name, ranges) > 0), None)
    if other is not None:
        return Choice(other, f"the client refuses what every browser shows and accepts {MIME_OF[other]} as any other")
    plain = next((name for name in ranked if name not in MODERN), ranked[0])
    return Choice(plain, "the client names no format that there is; every browser shows this one")


# There are only a few different headers of browsers, and a few sets of formats.
_remembered = lru_cache(maxsize=4096)(_choose)


def parse(accept: str) -> dict[str, float]:
    """Media ranges, in lower case and without parameters, with their qualities.

    Parts that cannot be parsed are ignored, as RFC 9110 allows. If a range is repeated, the higher quality counts.
    Media type parameters other than q are ignored, because our types have none.
    """
    ranges: dict[str, float] = {}
    for part in _QUOTED.sub('""', accept).split(","):
        name, *parameters = (piece.strip().lower() for piece in part.split(";"))
        kind, slash, subtype = name.partition("/")
        if not slash or not kind or not subtype or (kind == "*" and subtype != "*"):
            continue
        weight = _weight(parameters)
        if weight is not None:
            ranges[name] = max(weight, ranges.get(name, 0.0))
    return ranges


def _weight(parameters: Sequence[str]) -> float | None:
    """The q of a range; 1 where there is none, None where it cannot be parsed."""
    for parameter in parameters:
        name, equals, value = (piece.strip() for piece in parameter.partition("="))
        if name == "q":
            plain = value.replace(".", "", 1)
            if not equals or not plain.isdecimal() or not plain.isascii() or not 0.0 <= float(value) <= 1.0:
                return None
            return float(value)
    return 1.0


def quality(name: str, ranges: dict[str, float]) -> float:
    """The quality of a format for a client, 0 if it is refused; the most specific range counts."""
    return ranges.get(MIME_OF[name], 0.0) if name in MODERN else _by_wildcard(name, ranges)


def _by_wildcard(name: str, ranges: dict[str, float]) -> float:
    """The quality of a format, also by wildcards."""
    return ranges.get(MIME_OF[name], ranges.get("image/*", ranges.get("*/*", 0.0)))
