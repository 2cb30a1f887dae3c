"""The encoder quality at which a picture reaches a target score.

A fixed quality scores 67 on one photo and 82 on the next: noise and fine texture need more, soft pictures less. So the
quality of one size is searched by a few cheap encodings, each decoded and scored. The other sizes start from there, and
are encoded again only if they miss the target. Scores are sampled SSIMULACRA2 (see `ssimulacra2.Reference`), which take
little time compared with an encoding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imgpipe_orchestration.imaging.encoding.levels import Lossy, level_of, quality_at

CLOSE = 1.85
"""Points from the target up to which a file is good enough."""
_LOWEST: dict[Lossy, int] = {"avif": 20, "webp": 15, "jpeg": 20}
_HIGHEST: dict[Lossy, int] = {"avif": 92, "webp": 97, "jpeg": 96}
"""Beyond these a file grows fast and its score hardly does, because no encoder can preserve noise."""
_STEPS: dict[Lossy, tuple[float, float, float, float]] = {
    "avif": (24.0, 1.24, 0.025, -0.022),
    "webp": (80.0, 1.30, -0.050, -0.050),
    "jpeg": (75.0, 1.77, -0.021, -0.046),
}
"""How many levels a missing point of score takes: a usual level, levels per point there, and the change of that figure
per level above it and per missing point. Fitted to 80 photographs at six sizes: of tries that missed by up to 4 points,
four in five were within 1.1 points at the next one."""
_FEWEST = 0.4
"""Fewest levels per point; at the highest qualities the fit would give less, which is not reliable."""
_KNOWN = 8.0
"""Missing points, either way, up to which the fit holds."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A file, its quality (0: lossless) and its measured score (None: not measured)."""

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
    """Encode until the score is within `CLOSE` of the target, at most `tries` times; the try nearest to it wins.

    Args:
        start: level of the first try, or an earlier try to go on from.
        encode: quality -> file.
        score: file -> score.
    """
    seen = {start.quality: start} if isinstance(start, Encoded) else {}
    quality = bounded(kind, _next(kind, [start], target) if isinstance(start, Encoded) else start)
    for _ in range(tries):
        if quality in seen or any(abs(miss(one, target)) <= CLOSE for one in seen.values()):
            break
        data = encode(quality)
        seen[quality] = Encoded(data, quality, score(data))
        quality = bounded(kind, _next(kind, list(seen.values()), target))
    return min(seen.values(), key=lambda one: abs(miss(one, target)))


def exact(kind: Lossy, one: Encoded, target: float) -> float:
    """The level at which this file would have hit the target, estimated by the usual steps."""
    level = level_of(kind, one.quality)
    return level + _step(kind, level, -miss(one, target))


def _step(kind: Lossy, level: float, lacks: float) -> float:
    """Levels from a try to the target, by the points that the try lacks."""
    return lacks * _levels_for_a_point(kind, level, lacks)


def _levels_for_a_point(kind: Lossy, level: float, lacks: float) -> float:
    usual, levels, by_level, by_points = _STEPS[kind]
    known = min(max(lacks, -_KNOWN), _KNOWN)
    return max(_FEWEST, levels + by_level * (level - usual) + by_points * known)


def _next(kind: Lossy, seen: list[Encoded], target: float) -> float:
    """The level to try next: after one try by the usual steps, later along the line through two tries, if possible on
    both sides of the target."""
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
        usual = 1 / _levels_for_a_point(kind, level, 0.0)
        step = -points / (rise if beyond and rise > 0 else min(max(rise, usual / 3), usual * 3))
    return level + (step if abs(step) >= 1 else (1 if step > 0 else -1))


def miss(one: Encoded, target: float) -> float:
    """Points above the target, negative below it; 0 for a file without a score."""
    return (one.score if one.score is not None else target) - target


def bounded(kind: Lossy, level: float) -> int:
    """The quality nearest to a level, within the range that is worth its bytes."""
    return min(max(quality_at(kind, level), _LOWEST[kind]), _HIGHEST[kind])
