"""What the overview shows: each pipeline now and over the last day, spending, pauses, the latest failures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.gateway.pages import throughput
from imgpipe_orchestration.gateway.pages.pipelines import ABOUT, About
from imgpipe_orchestration.gateway.pages.subjects import subjects
from imgpipe_orchestration.listings import store as listings
from imgpipe_orchestration.media import search
from imgpipe_orchestration.media.intake import with_unseen
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.search import Filters
from imgpipe_orchestration.operations.pipelines import PIPELINES
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.backlog import STUCK_LIMIT, HeldUp, QueueCounts
from imgpipe_orchestration.storage.rows import time_of, transaction

LATEST = 5
"""Failures named on the overview."""
PICTURES = 12
"""Images shown on the overview."""
HEIGHT = 40.0
"""Height of the tallest bar, SVG units."""
LEAST = 1.5
"""Least height of a bar above zero, SVG units, so that one item is visible beside a thousand."""


@dataclass(slots=True)
class Pipeline:
    """One pipeline now. `hours` holds (hour, done, failed) of the last 24 hours, the oldest first."""

    about: About
    waiting: int = 0
    claimed: int = 0
    failed: int = 0
    stuck: int = 0
    held: HeldUp | None = None
    """Why most of the waiting items wait."""
    oldest_seconds: float | None = None
    average_seconds: float | None = None
    hours: list[tuple[datetime, int, int]] = field(default_factory=list)

    def add(self, queue: QueueCounts) -> None:
        self.waiting += queue.waiting
        self.claimed += queue.claimed
        self.failed += queue.failed
        self.stuck += queue.stuck
        if queue.oldest_waiting_seconds is not None:
            self.oldest_seconds = max(self.oldest_seconds or 0.0, queue.oldest_waiting_seconds)

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
            (height(done), height(failed), f"{hour:%H:00}: {done} done" + (f", {failed} failed" if failed else ""))
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
    counts = with_unseen(services, services.claims.counts())
    latest, waiting = services.claims.failures(limit=LATEST), services.claims.held_up()
    with transaction(services.engine) as connection:
        now = time_of(connection).astimezone(UTC)
        hours = throughput.hours(connection, now)
        spent = spending.today(connection, by=("provider",))
        counts[MARKER] = job_instances.counts(connection, MARKER)
        marker = job_instances.held_up(connection, MARKER, limit=1)
        held = [*listings.held_up(connection), *waiting, *marker]
        newest = search.latest(connection, Filters(status=MediaStatus.COMPLETED), limit=PICTURES)
        standings = budgets.standings(connection, services.settings.daily_budget_usd)
        return {
            "now": now,
            "pipelines": [_pipeline(about, counts, hours, held) for about in ABOUT],
            "height": HEIGHT,
            "stuck_limit": STUCK_LIMIT,
            "spent": spent,
            "cost": sum((line.cost_usd for line in spent), Decimal(0)),
            "standin": sum(line.standin for line in spent),
            "month": spending.this_month(connection),
            "budgets": [one for one in standings if one.used_up],
            "pauses": spending.pauses(connection),
            "latest": latest,
            "subjects": subjects(connection, [(letter.queue, letter.item_id) for letter in latest]),
            "pictures": [image for image in newest if not (image.private or image.held)],
        }


def _pipeline(
    about: About,
    counts: dict[str, QueueCounts],
    hours: list[tuple[datetime, throughput.Counts]],
    held: Iterable[HeldUp],
) -> Pipeline:
    names = [MARKER] if about.name == MARKER else [queue.name for queue in PIPELINES[about.name]()]
    one = Pipeline(about, held=next((reason for reason in held if reason.queue in names), None))
    for name in names:
        if name in counts:
            one.add(counts[name])
    if names[0] in counts:  # the pipeline's main queue
        one.average_seconds = counts[names[0]].average_seconds
    for hour, ended in hours:
        one.hours.append((hour, ended[names[0], "done"], sum(ended[name, "failed"] for name in names)))
    return one
