"""The overview: each pipeline now and over the last day, today's spending, pauses, the latest failures; live.

Counts of past bins never change, so they are kept in `work_bins`. Only younger items are counted again, so the overview
takes as long after a million items as after ten.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from cachetools import TTLCache, cached
from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import Connection, text

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.pages.frame import Page, part
from imgpipe_orchestration.gateway.pages.subjects import ABOUT, About, about_queue, subjects
from imgpipe_orchestration.gateway.session import Operator
from imgpipe_orchestration.listings import store as listings
from imgpipe_orchestration.media import search
from imgpipe_orchestration.media.intake import queue_counts
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.search import Filters
from imgpipe_orchestration.operations.pipelines import PIPELINES
from imgpipe_orchestration.storage import deletions, job_instances
from imgpipe_orchestration.storage.backlog import STUCK_LIMIT, HeldUp, QueueCounts
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

LATEST = 5
"""Failures named on the overview."""
PICTURES = 12
"""Images shown on the overview."""
HEIGHT = 40.0
"""Height of the tallest bar, SVG units."""
LEAST = 1.5
"""Least height of a bar above zero, SVG units, so that one item is visible beside a thousand."""
FRESH = 1.0
"""Seconds within which all viewers share one reading of the database."""
INTERVAL = 1.5
"""Seconds between two events."""
LONGEST = 600.0
"""Seconds after which a stream ends. The browser then opens another one, for which the session is checked again."""

Counts = Counter[tuple[str, str]]
"""Items by (queue, outcome). For the auto-marker, under its job's name: marked images as done, and failed jobs of
customers as failed, as on the failures page; an image that cannot be marked would count in every round."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline now. `hours` holds (hour, done, failed) of the last 24 hours, the oldest first."""

    about: About
    waiting: int
    claimed: int
    failed: int
    stuck: int
    held: HeldUp | None
    """Why most of the waiting items wait."""
    oldest_seconds: float | None
    average_seconds: float | None
    hours: list[tuple[datetime, int, int]]

    @property
    def done_today(self) -> int:
        """Since midnight (UTC), as the hours are."""
        return sum(done for hour, done, _ in self.hours if hour.date() == self.hours[-1][0].date())

    @property
    def most(self) -> int:
        """Items done in the busiest of `hours`. Failures are of other units: tries, or jobs of the auto-marker."""
        return max((done for _, done, _ in self.hours), default=0)

    @property
    def bars(self) -> list[tuple[float, float, str]]:
        """The chart: a bar an hour, scaled to the busiest one; heights of done and failed, and the words for its
        tooltip."""
        scale = HEIGHT / max(1, *(done + failed for _, done, failed in self.hours))

        def height(count: int) -> float:
            return round(max(LEAST, count * scale), 2) if count else 0.0

        return [
            (height(done), height(failed), f"{hour:%H:00} UTC: {done} done" + (f", {failed} failed" if failed else ""))
            for hour, done, failed in self.hours
        ]

    @property
    def summary(self) -> str:
        """The chart in one sentence, for screen readers."""
        done, failed = sum(h[1] for h in self.hours), sum(h[2] for h in self.hours)
        if not done and not failed:
            return "Nothing ended in the last 24 hours."
        hour, most, _ = max(self.hours, key=lambda h: h[1])
        return f"Last 24 hours: {done} done, {failed} failed; busiest from {hour:%H:00} UTC with {most}."


def look(services: Services) -> dict[str, Any]:
    """Everything the overview shows, at one moment: the values of `figures.html`."""
    counts = queue_counts(services)
    latest, waiting = services.claims.failures(limit=LATEST), services.claims.held_up()
    with transaction(services.engine) as connection:
        now = time_of(connection).astimezone(UTC)
        hours = hours_of(connection, now)
        today = now.date()
        spent = spending.between(connection, today, today, ["provider"])
        month = spending.between(connection, today.replace(day=1), today, ["day"])
        held = [*listings.held_up(connection), *waiting]
        newest = search.latest(connection, Filters(status=MediaStatus.COMPLETED, held=False), limit=PICTURES)
        standings = budgets.standings(connection, services.settings.daily_budget_usd)
        # By customer. Their items are done, because the next round does what is left.
        failed = {MARKER: len(job_instances.failures(connection, MARKER, limit=1000))}
        return {
            "now": now,
            "pipelines": [_pipeline(about, counts, hours, held, failed.get(about.name, 0)) for about in ABOUT],
            "height": HEIGHT,
            "stuck_limit": STUCK_LIMIT,
            "spent": spent,
            "cost": sum((line.cost_usd for line in spent), Decimal(0)),
            "standin": sum(line.standin for line in spent),
            "month": sum((line.cost_usd for line in month), Decimal(0)),
            "budgets": [one for one in standings if one.used_up],
            "pauses": spending.pauses(connection),
            # The main reason of each queue that has no card. What is in the trash waits for its judge on purpose.
            "held": {
                one.queue: one
                for one in reversed(waiting)
                if about_queue(one.queue) is None and one.error != deletions.DELETED
            }.values(),
            "latest": latest,
            "subjects": subjects(connection, [(letter.queue, letter.item_id) for letter in latest]),
            "pictures": newest,
        }


def _pipeline(
    about: About,
    counts: dict[str, QueueCounts],
    hours: list[tuple[datetime, Counts]],
    held: Iterable[HeldUp],
    failed_jobs: int,
) -> Pipeline:
    names = [queue.name for queue in PIPELINES[about.name]]
    main, queues = counts.get(names[0]), [counts[name] for name in names if name in counts]
    ages = [queue.oldest_waiting_seconds for queue in queues if queue.oldest_waiting_seconds is not None]
    return Pipeline(
        about,
        waiting=sum(queue.waiting for queue in queues),
        claimed=sum(queue.claimed for queue in queues),
        failed=failed_jobs + sum(queue.failed for queue in queues),
        stuck=sum(queue.stuck for queue in queues),
        held=next((reason for reason in held if reason.queue in names), None),
        oldest_seconds=max(ages, default=None),
        average_seconds=main.average_seconds if main else None,
        hours=[(at, ended[names[0], "done"], sum(ended[name, "failed"] for name in names)) for at, ended in hours],
    )


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


_KEPT = text("""
    select date_trunc('hour', bin, 'UTC') as bin, queue, outcome, cast(sum(n) as bigint) as n, max(bin) as last
    from work_bins where bin >= :since group by 1, 2, 3
""")
_KEEP = text("insert into work_bins values (:bin, :queue, :outcome, :n) on conflict do nothing")
_DROP = text("delete from work_bins where bin < :before")


def hours_of(connection: Connection, now: datetime) -> list[tuple[datetime, Counts]]:
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


Watch = Callable[[], dict[str, str]]
"""Returns when the figures were read (`09:41:07 UTC`), and the HTML of the part of the page that shows them. Raises
BackendUnavailable while the database is away."""


def watching(services: Services) -> Watch:
    """Reads and renders the figures at most once every FRESH seconds, however many people watch."""

    @cached(TTLCache(1, FRESH), condition=threading.Condition())  # those who come during a reading wait for it
    def shown() -> dict[str, str]:
        glance = look(services)
        drawn = part("figures.html", glance=glance, dagster=services.settings.dagster_url)
        return {"at": f"{glance['now']:%H:%M:%S UTC}", "figures": drawn}

    return shown


@router.get("/", response_class=Response)
def overview(request: Request, page: Page) -> Response:
    watch: Watch = request.app.state.watch
    return page("overview.html", shown=watch())


@router.get("/events", response_class=EventSourceResponse)
async def events(request: Request, _: Operator) -> AsyncIterator[ServerSentEvent]:
    """Event `figures`: whether they changed since the last one. Event `away`: they cannot be read at the moment."""
    watch: Watch = request.app.state.watch
    stopping = getattr(request.app.state, "stopping", lambda: False)
    told = None
    yield ServerSentEvent(retry=2000)
    for _look in range(int(LONGEST / INTERVAL)):
        try:
            figures = (await run_in_threadpool(watch))["figures"]
            yield ServerSentEvent(event="figures", data={"changed": told not in (None, figures)})
            told = figures
        except ImgpipeError:
            yield ServerSentEvent(event="away", data={})
        if stopping() or await request.is_disconnected():
            return
        await asyncio.sleep(INTERVAL)
