"""Throughput: ended items by queue, outcome and hour, over the last day.

Counts of past bins never change, so they are kept in `work_bins`. Only younger items are counted again, so the overview
takes as long after a million items as after ten.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

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


_KEPT = text("""
    select date_trunc('hour', bin, 'UTC') as bin, queue, outcome, cast(sum(n) as bigint) as n, max(bin) as last
    from work_bins where bin >= :since group by 1, 2, 3
""")
_KEEP = text("insert into work_bins values (:bin, :queue, :outcome, :n) on conflict do nothing")
_DROP = text("delete from work_bins where bin < :before")


def hours(connection: Connection, now: datetime) -> list[tuple[datetime, Counts]]:
    """24 (hour, counts) pairs, the oldest first, the current hour last."""
    hour = timedelta(hours=1)
    first = now.replace(minute=0, second=0, microsecond=0) - SPAN + hour
    kept = connection.execute(_KEPT, {"since": first}).all()
    since = max((row.last + BIN for row in kept), default=first)
    fresh = connection.execute(_COUNT, {"since": since}).all()
    final_until = since + max(0, (now - GRACE - since) // BIN) * BIN
    if final_until > since:
        final = [dict(row._mapping) for row in fresh if row.bin < final_until]
        # An empty row in the last bin marks how far they go.
        connection.execute(_KEEP, [*final, {"bin": final_until - BIN, "queue": "", "outcome": "", "n": 0}])
        connection.execute(_DROP, {"before": first})
    found = [(first + place * hour, Counts()) for place in range(24)]
    for row in (*kept, *fresh):
        if (place := (row.bin - first) // hour) < 24:
            found[place][1][row.queue, row.outcome] += row.n
    return found
