"""The overview's figures: each pipeline, today's spending, pauses, the latest failures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.billing.budgets import Budget
from imgpipe_orchestration.billing.spending import Pause, Spent
from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.pages import throughput
from imgpipe_orchestration.gateway.pages.pipelines import ABOUT, About
from imgpipe_orchestration.gateway.pages.subjects import Subjects, subjects
from imgpipe_orchestration.gateway.pages.throughput import BIN, Counts
from imgpipe_orchestration.listings import store as listings
from imgpipe_orchestration.media import search
from imgpipe_orchestration.media.intake import with_unseen
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.search import Filters, Found
from imgpipe_orchestration.operations.pipelines import PIPELINES
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.backlog import DeadLetter, HeldUp, QueueCounts
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

FRESH = 1.0
"""Seconds within which all viewers share one reading of the database."""
LATEST = 5
"""Failures named on the overview."""
PICTURES = 12
"""Images shown on the overview."""


@dataclass(slots=True)
class Pipeline:
    """One pipeline now. `hours` holds (hour, done, failed) of the last 24 hours, the oldest first."""

    about: About
    waiting: int = 0
    claimed: int = 0
    done_today: int = 0
    failed: int = 0
    stuck: int = 0
    held: HeldUp | None = None
    """Why most of the waiting items wait."""
    oldest_seconds: float | None = None
    average_seconds: float | None = None
    hours: list[tuple[datetime, int, int]] = field(default_factory=list)

    @property
    def most(self) -> int:
        """Items done in the busiest of `hours`. Failures are of other units: tries, or jobs of the auto-marker."""
        return max((done for _, done, _ in self.hours), default=0)


@dataclass(frozen=True, slots=True)
class Glance:
    """Everything the overview shows, at one moment."""

    at: datetime
    pipelines: list[Pipeline]
    spent: list[Spent]
    month: Decimal
    """US dollars since the first of the month (UTC)."""
    budgets: list[Budget]
    """Those that are used up."""
    pauses: list[Pause]
    latest: list[DeadLetter]
    subjects: Subjects
    """What `latest` are about."""
    pictures: list[Found]
    """The newest images that anybody may see."""

    @property
    def cost(self) -> Decimal:
        return sum((line.cost_usd for line in self.spent), Decimal(0))

    @property
    def standin(self) -> int:
        return sum(line.standin for line in self.spent)


@dataclass(frozen=True, slots=True)
class Shown:
    """The figures as the page shows them."""

    at: str
    """When they were read, e.g. `09:41:07 UTC`."""
    figures: str
    """The HTML of the part of the page that shows them."""


class Watch:
    """Reads and renders the figures at most once every FRESH seconds, however many people watch."""

    def __init__(self, services: Services, draw: Callable[[Glance], str]) -> None:
        self._services = services
        self._draw = draw
        self._lock = threading.Lock()
        self._last: tuple[float, Shown] | None = None

    def shown(self) -> Shown:
        """The figures, at most FRESH seconds old.

        Raises:
            BackendUnavailable: the database is away.
        """
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH:
                glance = self._look()
                shown = Shown(glance.at.strftime("%H:%M:%S UTC"), self._draw(glance))
                self._last = time.monotonic(), shown  # the end of the look, so that those who waited use it too
            return self._last[1]

    def keep(self, stop: threading.Event) -> None:
        """Look at once, then every BIN until `stop` is set, so that old bins are counted before anybody asks."""
        while True:
            try:
                self.shown()
            except ImgpipeError as error:
                log.info("the overview's figures cannot be had", extra={"error": error.public})
            except Exception:  # a fault of ours must not end the thread
                log.exception("the overview's figures cannot be had")
            if stop.wait(BIN.total_seconds()):
                return

    def _look(self) -> Glance:
        services = self._services
        counts = with_unseen(services, services.claims.counts())
        latest = services.claims.failures(limit=LATEST)
        with transaction(services.engine) as connection:
            now = time_of(connection).astimezone(UTC)
            midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
            hours = throughput.hours(connection, now)
            spent = spending.today(connection, by=("provider",))
            month = spending.this_month(connection)
            limits = budgets.standings(connection, services.settings.daily_budget_usd)
            pauses = spending.pauses(connection)
            counts[MARKER] = job_instances.counts(connection, MARKER)
            stopped = listings.held_up(connection)
            marker = job_instances.held_up(connection, MARKER, limit=1)
            newest = search.latest(connection, Filters(status=MediaStatus.COMPLETED), limit=PICTURES)
            named = subjects(connection, [(letter.queue, letter.item_id) for letter in latest])
        held = [*stopped, *services.claims.held_up(), *marker]
        pipelines = []
        for about in ABOUT:
            names = [MARKER] if about.name == MARKER else [queue.name for queue in PIPELINES[about.name]()]
            one = _summed(about, [counts[name] for name in names if name in counts], names[0])
            one.held = next((reason for reason in held if reason.queue in names), None)
            _add_hours(one, names, hours, midnight)
            pipelines.append(one)
        pictures = [image for image in newest if not (image.private or image.held)]
        used_up = [one for one in limits if one.used_up]
        return Glance(now, pipelines, spent, month, used_up, pauses, latest, named, pictures)


def _summed(about: About, counts: Iterable[QueueCounts], main: str) -> Pipeline:
    one = Pipeline(about)
    for queue in counts:
        one.waiting += queue.waiting
        one.claimed += queue.claimed
        one.failed += queue.failed
        one.stuck += queue.stuck
        if queue.oldest_waiting_seconds is not None:
            one.oldest_seconds = max(one.oldest_seconds or 0.0, queue.oldest_waiting_seconds)
        if queue.queue == main:
            one.average_seconds = queue.average_seconds
    return one


def _add_hours(one: Pipeline, names: list[str], hours: list[tuple[datetime, Counts]], midnight: datetime) -> None:
    for hour, counts in hours:
        done = counts[names[0], "done"]  # of the pipeline's main queue only
        one.hours.append((hour, done, sum(counts[name, "failed"] for name in names)))
        if hour >= midnight:
            one.done_today += done
