"""Small charts as plain SVG: a bar an hour, drawn by the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

HEIGHT = 40.0
"""Height of the tallest bar, SVG units."""
LEAST = 1.5
"""Least height of a bar above zero, SVG units, so that one item is visible beside a thousand."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour: heights in SVG units, and the words for its tooltip."""

    done: float
    failed: float
    words: str


def bars(hours: Sequence[tuple[datetime, int, int]]) -> list[Bar]:
    """Bars of (hour, done, failed), scaled to the busiest hour."""
    most = max((done + failed for _, done, failed in hours), default=0)
    scale = HEIGHT / most if most else 0.0
    return [
        Bar(
            _height(done, scale),
            _height(failed, scale),
            f"{hour:%H:00}: {done} done" + (f", {failed} failed" if failed else ""),
        )
        for hour, done, failed in hours
    ]


def summary(hours: Sequence[tuple[datetime, int, int]]) -> str:
    """The chart in one sentence, for screen readers."""
    done, failed = sum(h[1] for h in hours), sum(h[2] for h in hours)
    if not done and not failed:
        return "Nothing ended in the last 24 hours."
    hour, most, _ = max(hours, key=lambda h: h[1])
    return f"Last 24 hours: {done} done, {failed} failed; busiest from {hour:%H:00} UTC with {most}."


def _height(count: int, scale: float) -> float:
    return round(max(LEAST, count * scale), 2) if count else 0.0
