"""Which of the formats at hand suits an `Accept` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from imgpipe_orchestration.imaging.formats import MIME_OF

MODERN = frozenset({"avif", "webp"})
"""Formats that are sent only to clients that name them, or that refuse all others: `image/*` and `*/*` are sent by
clients that show neither."""
ORDER = tuple(MIME_OF)
"""Ours, among formats that the client likes equally."""
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"?')
"""A quoted parameter, whose commas and semicolons separate nothing; one that is not closed goes to the end, or a header
of nothing but quotes would be searched from each of them."""
LONGEST_KEPT = 512
"""Letters of a header whose reading is remembered: what strangers send must not fill memory."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The format a client gets, and why."""

    format: str
    reason: str


def choose(accept: str | None, available: tuple[str, ...]) -> Choice:
    """The best of `available` for this client. Never none: who accepts no image of ours gets JPEG or PNG, not a 406."""
    return (_remembered if len(accept or "") <= LONGEST_KEPT else _choose)(accept or "", available)


def _choose(accept: str, available: tuple[str, ...]) -> Choice:
    ranges = parse(accept)
    ranked = [name for name in ORDER if name in available]
    best = max(ranked, key=lambda name: (quality(name, ranges), -ranked.index(name)))
    liked = quality(best, ranges)
    if liked > 0:
        return Choice(best, f"the client accepts {MIME_OF[best]} with q={liked:g}; among equals AVIF, WebP, JPEG, PNG")
    # WebP before AVIF: more programs show it.
    other = next((name for name in reversed(ranked) if _by_wildcard(name, ranges) > 0), None)
    if other is not None:
        return Choice(other, f"the client refuses what every browser shows and accepts {MIME_OF[other]} as any other")
    plain = next((name for name in ranked if name not in MODERN), ranked[0])
    return Choice(plain, "the client names no format that there is; every browser shows this one")


# Browsers send a handful of different headers, images come in a handful of sets of formats.
_remembered = lru_cache(maxsize=4096)(_choose)


def parse(accept: str) -> dict[str, float]:
    """Media ranges, lower case and without parameters, with their qualities.

    A part that cannot be read is left out, as RFC 9110 lets a server do; of a range given twice the higher quality
    counts. Media type parameters other than q are ignored: ours have none.
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
    """The q of a range, 1 when there is none, None when it cannot be read."""
    for parameter in parameters:
        name, equals, value = (piece.strip() for piece in parameter.partition("="))
        if name == "q":
            plain = value.replace(".", "", 1)
            if not equals or not plain.isdecimal() or not plain.isascii() or not 0.0 <= float(value) <= 1.0:
                return None
            return float(value)
    return 1.0


def quality(name: str, ranges: dict[str, float]) -> float:
    """How much a client wants a format, 0 for not at all; the most specific range decides."""
    return ranges.get(MIME_OF[name], 0.0) if name in MODERN else _by_wildcard(name, ranges)


def _by_wildcard(name: str, ranges: dict[str, float]) -> float:
    """The same where a wildcard also means formats that the client does not name."""
    return ranges.get(MIME_OF[name], ranges.get("image/*", ranges.get("*/*", 0.0)))
