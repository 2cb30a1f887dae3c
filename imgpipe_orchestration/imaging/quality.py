"""The encoder quality at which a picture reaches a target score.

A fixed quality scores 67 on one photo and 82 on the next: noise and fine texture need more, soft pictures less. So one
size is searched (a few cheap encodings, each decoded and scored), and its quality is where the other sizes start: they
are encoded, scored, and encoded once more only if they miss. The largest are not scored, they carry on the trend.
Scores are SSIMULACRA2, sampled (see `ssimulacra2.Reference`), so that they cost little next to an encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Lossy = Literal["avif", "webp", "jpeg"]

CLOSE = 1.5
"""Points from the target that need no better encoding."""
_LOWEST: dict[Lossy, int] = {"avif": 20, "webp": 15, "jpeg": 20}
_HIGHEST: dict[Lossy, int] = {"avif": 92, "webp": 97, "jpeg": 96}
"""Beyond these a file grows fast and its score hardly (noise that no encoder can keep)."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file, the quality it has and the score it was measured at (None: not measured)."""

    data: bytes
    quality: int
    score: float | None


def reach(
    target: float,
    kind: Lossy,
    start: float,
    encode: Callable[[int], bytes],
    score: Callable[[bytes], float],
    *,
    tries: int,
    before: Encoded | None = None,
) -> Encoded:
    """Encode until the score is CLOSE to the target, at most `tries` times; the nearest one wins.

    Args:
        start: quality of the first try.
        encode: quality -> file.
        score: file -> score.
        before: an earlier try to go on from, instead of `start`.
    """
    seen = {before.quality: before} if before else {}
    quality = bounded(kind, _next(kind, [before], target) if before else start)
    for _ in range(tries):
        if quality in seen or any(close(one, target) for one in seen.values()):
            break
        data = encode(quality)
        seen[quality] = Encoded(data, quality, score(data))
        quality = bounded(kind, _next(kind, list(seen.values()), target))
    return min(seen.values(), key=lambda one: abs(miss(one, target)))


def close(one: Encoded, target: float, points: float = CLOSE) -> bool:
    """Whether a scored file needs no better one."""
    return abs(miss(one, target)) <= points


def exact(kind: Lossy, one: Encoded, target: float) -> float:
    """The quality that would have hit the target, as far as the usual slope tells, which itself changes on the way."""
    points = miss(one, target)
    half_way = one.quality - points / slope(kind, one.quality) / 2
    return one.quality - points / slope(kind, half_way)


def carried(smaller: float, larger: float, position: float) -> float:
    """The quality for a picture, from those of two others.

    Args:
        position: its size as a logarithm, 0 at the smaller of the two and 1 at the larger. In between it is theirs in
            proportion; beyond, the trend is followed for at most as far again.
    """
    return smaller + min(max(position, 0.0), 2.0) * (larger - smaller)


def slope(kind: Lossy, quality: float) -> float:
    """Points of score per step of quality, as measured over 13 photos at three sizes around a score of 75."""
    if kind == "avif":
        return 0.82
    return max(0.2, 0.0108 * quality - 0.156)


def _next(kind: Lossy, seen: list[Encoded], target: float) -> float:
    """Where to try next: along the usual slope at first, along the seen one once there are two."""
    nearest = min(seen, key=lambda one: abs(miss(one, target)))
    rise = slope(kind, nearest.quality)
    others = [one for one in seen if one is not nearest]
    if others:
        other = min(others, key=lambda one: abs(miss(one, target)))
        measured = (miss(nearest, target) - miss(other, target)) / (nearest.quality - other.quality)
        rise = min(max(measured, rise / 3), rise * 3)
    else:
        # The slope itself changes on the way: take it half way there.
        half = nearest.quality - miss(nearest, target) / rise / 2
        rise = slope(kind, half)
    step = -miss(nearest, target) / rise
    return nearest.quality + (step if abs(step) >= 1 else (1 if step > 0 else -1))


def miss(one: Encoded, target: float) -> float:
    """Points above the target, negative below."""
    return (one.score if one.score is not None else target) - target


def bounded(kind: Lossy, quality: float) -> int:
    """A quality that the encoder knows and that is worth its bytes."""
    return min(max(round(quality), _LOWEST[kind]), _HIGHEST[kind])
