"""Sums of how long items take in each stage.

A run adds its sums once per batch. Metrics report them as growing counters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class StageTime:
    """Totals of a stage for one outcome (done, retried, failed or lost); `seconds` are summed over the items."""

    queue: str
    stage: str
    outcome: str
    items: int
    seconds: float


def add(connection: Connection, queue: str, stage: str, times: Mapping[str, tuple[int, float]]) -> None:
    """Add a batch's items and seconds, by outcome."""
    rows = [
        {"queue": queue, "stage": stage, "outcome": outcome, "items": items, "seconds": seconds}
        for outcome, (items, seconds) in sorted(times.items())  # sorted, so that two batches cannot deadlock
        if items
    ]
    if rows:
        connection.execute(_ADD, rows)


def totals(connection: Connection) -> list[StageTime]:
    """The totals of every stage that ever worked."""
    return [StageTime(*row) for row in connection.execute(_TOTALS)]


_ADD = text("""
    insert into stage_times (queue, stage, outcome, items, seconds) values (:queue, :stage, :outcome, :items, :seconds)
    on conflict (queue, stage, outcome) do update
    set items = stage_times.items + excluded.items, seconds = stage_times.seconds + excluded.seconds
""")

_TOTALS = text("select queue, stage, outcome, items, seconds from stage_times order by queue, stage, outcome")
