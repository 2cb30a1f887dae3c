"""Throughput: ended items by queue, outcome and hour, over the last day.

Counts of past bins never change, so they are kept in memory, and in `work_bins` for the next start. Only younger items
are counted again, so the overview takes as long after a million items as after ten.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

BIN = timedelta(minutes=10)
SPAN = timedelta(hours=24)
GRACE = timedelta(minutes=2)
"""A bin is final this long after its end, because a transaction commits a little later than its `ended_at`."""

_COUNT = text("""
    select date_bin('10 minutes', ended_at, timestamptz '2020-01-01 00:00:00+00') as bin, queue, outcome, count(*) as n
    from work_attempts
    where ended_at >= :since and outcome in ('done', 'failed') and queue <> 'auto_marker' group by 1, 2, 3
    union all
    select date_bin('10 minutes', finished_at, timestamptz '2020-01-01 00:00:00+00'), job, kind.outcome,
        cast(sum(kind.n) as bigint)
    from job_instances cross join lateral (values
        ('done', cast(coalesce(result ->> 'images_marked', '0') as bigint)),
        ('failed', cast(status = 'failed' as integer))
    ) as kind (outcome, n)
    where finished_at >= :since and status in ('completed', 'failed') and job = 'auto_marker' group by 1, 2, 3
""")


Counts = Counter[tuple[str, str]]
"""Items by (queue, outcome). For the auto-marker, under its job's name: marked images as done, and failed jobs of
customers as failed, as on the failures page; an image that cannot be marked would count in every round."""


_KEPT = text("select bin, queue, outcome, n from work_bins where bin >= :since")
_KEEP = text("insert into work_bins values (:bin, :queue, :outcome, :n) on conflict do nothing")
_DROP = text("delete from work_bins where bin < :before")


class Throughput:
    """Counts of the last SPAN, kept between calls. Shared by all requests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._final: dict[datetime, Counts] = {}
        self._final_until: datetime | None = None

    def hours(self, connection: Connection, now: datetime) -> list[tuple[datetime, Counts]]:
        """24 (hour, counts) pairs, the oldest first, the current hour last."""
        last = now.replace(minute=0, second=0, microsecond=0)
        first = last - SPAN + timedelta(hours=1)
        with self._lock:
            bins = self._bins(connection, first, now)
        hours = [(first + timedelta(hours=i), Counts()) for i in range(24)]
        for start, counts in bins.items():
            place = int((start - first) / timedelta(hours=1))
            if 0 <= place < 24:
                hours[place][1].update(counts)
        return hours

    def _bins(self, connection: Connection, first: datetime, now: datetime) -> dict[datetime, Counts]:
        if self._final_until is None:
            self._final = _binned(connection.execute(_KEPT, {"since": first}))
            self._final_until = max(self._final, default=first - BIN) + BIN
        since = max(first, self._final_until)
        fresh = _binned(connection.execute(_COUNT, {"since": since}))
        final_until = since + max(0, (now - GRACE - since) // BIN) * BIN
        kept = {start: counts for start, counts in self._final.items() if start >= first}
        final = {start: counts for start, counts in fresh.items() if start < final_until}
        if final_until > since:
            _write(connection, final, last=final_until - BIN, before=first)
        self._final, self._final_until = {**kept, **final}, final_until
        return {**kept, **fresh}


def _binned(rows: Iterable[Row[Any]]) -> dict[datetime, Counts]:
    found: dict[datetime, Counts] = {}
    for row in rows:
        found.setdefault(row.bin, Counter())[row.queue, row.outcome] += row.n
    return found


def _write(connection: Connection, final: dict[datetime, Counts], *, last: datetime, before: datetime) -> None:
    """Keep final bins for the next start. An empty row in the bin `last` marks how far they go."""
    rows = [
        {"bin": start, "queue": queue, "outcome": outcome, "n": n}
        for start, counts in final.items()
        for (queue, outcome), n in counts.items()
    ]
    connection.execute(_KEEP, [*rows, {"bin": last, "queue": "", "outcome": "", "n": 0}])
    connection.execute(_DROP, {"before": before})
