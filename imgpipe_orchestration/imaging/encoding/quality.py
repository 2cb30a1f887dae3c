"""The encoder quality at which a picture reaches a target score.

A fixed quality scores 67 on one photo and 82 on the next: noise and fine texture need more, soft pictures less. So one
size is searched (a few cheap encodings, each decoded and scored), and its quality is where the other sizes start, which
are encoded, scored, and encoded again only if they miss; `chain` says which go without a score. Scores are SSIMULACRA2,
sampled (see `ssimulacra2.Reference`), so that they cost little next to an encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imgpipe_orchestration.imaging.encoding.levels import Lossy, level_of, quality_at

CLOSE = 1.7
"""Points from the target that need no better encoding."""
_LOWEST: dict[Lossy, int] = {"avif": 20, "webp": 15, "jpeg": 20}
_HIGHEST: dict[Lossy, int] = {"avif": 92, "webp": 97, "jpeg": 96}
"""Beyond these a file grows fast and its score hardly (noise that no encoder can keep)."""
_STEPS: dict[Lossy, tuple[float, float, float, float]] = {
    "avif": (24.0, 1.24, 0.025, -0.022),
    "webp": (80.0, 1.30, -0.050, -0.050),
    "jpeg": (75.0, 1.77, -0.021, -0.046),
}
"""Levels for a point that is lacking: at the first one, so many; what each level above changes in that, and what each
lacking point does. From 80 photographs at six sizes: four in five of what missed by up to 4 points hit within 1.1."""
_FEWEST = 0.4
"""Levels for a point, at least: the highest qualities gain little that could be counted on."""
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
    start: float | Encoded,
    encode: Callable[[int], bytes],
    score: Callable[[bytes], float],
    *,
    tries: int,
) -> Encoded:
    """Encode until the score is CLOSE to the target, at most `tries` times; the nearest one wins.

    Args:
        start: level of the first try, or an earlier try to go on from.
        encode: quality -> file.
        score: file -> score.
    """
    seen = {start.quality: start} if isinstance(start, Encoded) else {}
    quality = bounded(kind, _next(kind, [start], target) if isinstance(start, Encoded) else start)
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
    """The level that would have hit the target, as far as the usual steps tell."""
    level = level_of(kind, one.quality)
    return level + _step(kind, level, -miss(one, target))


def carried(smaller: float, larger: float, position: float) -> float:
    """What goes with the size of a picture (its level, its bytes a pixel), from that of two others.

    Args:
        position: its size as a logarithm, 0 at the smaller of the two and 1 at the larger. In between it is theirs in
            proportion; beyond, the trend is followed for at most half as far again.
    """
    return smaller + min(max(position, 0.0), 1.5) * (larger - smaller)


def usual(kind: Lossy) -> float:
    """A level near the middle of what photographs need."""
    return _STEPS[kind][0]


def slope(kind: Lossy, level: float) -> float:
    """Points of score per level, close to the target."""
    return 1 / _levels_for_a_point(kind, level, 0.0)


def _step(kind: Lossy, level: float, lacks: float) -> float:
    """Levels to the target, by the points that a try lacks."""
    return lacks * _levels_for_a_point(kind, level, lacks)


def _levels_for_a_point(kind: Lossy, level: float, lacks: float) -> float:
    usual, levels, by_level, by_points = _STEPS[kind]
    known = min(max(lacks, -_KNOWN), _KNOWN)
    return max(_FEWEST, levels + by_level * (level - usual) + by_points * known)


def _next(kind: Lossy, seen: list[Encoded], target: float) -> float:
    """Where to try next: by the usual steps at first, along the line through two tries then, which lie on both sides of
    the target if there are such."""
    by_miss = sorted(seen, key=lambda one: abs(miss(one, target)))
    nearest = by_miss[0]
    points = miss(nearest, target)
    level = level_of(kind, nearest.quality)
    beyond = [one for one in by_miss if (miss(one, target) < 0) != (points < 0)]
    others = beyond or by_miss[1:]
    if not others:
        step = _step(kind, level, -points)
    else:
        rise = (points - miss(others[0], target)) / (level - level_of(kind, others[0].quality))
        usual = slope(kind, level)
        step = -points / (rise if beyond and rise > 0 else min(max(rise, usual / 3), usual * 3))
    return level + (step if abs(step) >= 1 else (1 if step > 0 else -1))


def miss(one: Encoded, target: float) -> float:
    """Points above the target, negative below."""
    return (one.score if one.score is not None else target) - target


def bounded(kind: Lossy, level: float) -> int:
    """The quality of a level, if it is worth its bytes."""
    return min(max(quality_at(kind, level), _LOWEST[kind]), _HIGHEST[kind])
