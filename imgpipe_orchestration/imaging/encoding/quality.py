"""The encoder quality at which a picture reaches a target score.

A fixed quality scores 67 on one photo and 82 on the next: noise and fine texture need more, soft pictures less. So one
size is searched (a few cheap encodings, each decoded and scored), and its quality is where the other sizes start, which
are encoded, scored, and encoded again only if they miss; `chain` says which go without a score. Scores are SSIMULACRA2,
sampled (see `ssimulacra2.Reference`), so that they cost little next to an encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Lossy = Literal["avif", "webp", "jpeg"]

CLOSE = 1.7
"""Points from the target that need no better encoding."""
_LOWEST: dict[Lossy, int] = {"avif": 20, "webp": 15, "jpeg": 20}
_HIGHEST: dict[Lossy, int] = {"avif": 92, "webp": 97, "jpeg": 96}
"""Beyond these a file grows fast and its score hardly (noise that no encoder can keep)."""
_STEPS: dict[Lossy, tuple[float, float, float]] = {
    "avif": (1.49, -0.016, -0.065),
    "webp": (2.78, -0.079, -0.065),
    "jpeg": (1.64, -0.004, -0.049),
}
"""Steps of quality for a point that is lacking: at quality 60, what each quality above changes in it, and what each
lacking point does. From 70 photographs at six sizes: of what missed by 2 to 4 points, the next try missed by 1.0 (root
mean square); by 4 to 6, 1.6 to 2.3."""
_FEWEST = 0.4
"""Steps for a point, at least: the highest qualities gain little that could be counted on."""
_KNOWN = 8.0
"""Points, either way, for which that was seen."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file, the quality it has (0: without loss) and the score it was measured at (None: not measured)."""

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
    """The quality that would have hit the target, as far as the usual steps tell."""
    return one.quality + _step(kind, one.quality, -miss(one, target))


def carried(smaller: float, larger: float, position: float) -> float:
    """The quality for a picture, from those of two others.

    Args:
        position: its size as a logarithm, 0 at the smaller of the two and 1 at the larger. In between it is theirs in
            proportion; beyond, the trend is followed for at most half as far again.
    """
    return smaller + min(max(position, 0.0), 1.5) * (larger - smaller)


def slope(kind: Lossy, quality: float) -> float:
    """Points of score per step of quality, close to the target."""
    steps, by_quality, _ = _STEPS[kind]
    return 1 / max(_FEWEST, steps + by_quality * (quality - 60))


def _step(kind: Lossy, quality: float, lacks: float) -> float:
    """Steps of quality to the target, by the points that a try lacks."""
    steps, by_quality, by_points = _STEPS[kind]
    known = min(max(lacks, -_KNOWN), _KNOWN)
    return lacks * max(_FEWEST, steps + by_quality * (quality - 60) + by_points * known)


def _next(kind: Lossy, seen: list[Encoded], target: float) -> float:
    """Where to try next: by the usual steps at first, along the line through two tries then, which lie on both sides of
    the target if there are such."""
    by_miss = sorted(seen, key=lambda one: abs(miss(one, target)))
    nearest = by_miss[0]
    points = miss(nearest, target)
    beyond = [one for one in by_miss if (miss(one, target) < 0) != (points < 0)]
    others = beyond or by_miss[1:]
    if not others:
        step = _step(kind, nearest.quality, -points)
    else:
        rise = (points - miss(others[0], target)) / (nearest.quality - others[0].quality)
        usual = slope(kind, nearest.quality)
        step = -points / (rise if beyond and rise > 0 else min(max(rise, usual / 3), usual * 3))
    return nearest.quality + (step if abs(step) >= 1 else (1 if step > 0 else -1))


def miss(one: Encoded, target: float) -> float:
    """Points above the target, negative below."""
    return (one.score if one.score is not None else target) - target


def bounded(kind: Lossy, quality: float) -> int:
    """A quality that the encoder knows and that is worth its bytes."""
    return min(max(round(quality), _LOWEST[kind]), _HIGHEST[kind])
