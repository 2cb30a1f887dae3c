"""`GET /metrics`: the figures of this gateway and of the whole back office, for Prometheus.

Requests are counted as they happen. Figures of the database (queues, stages, paid calls) are read at a scrape, at most
once every KEPT_SECONDS, by queries that take as long with a large backlog as with a small one. Every gateway reports
the same figures of the database: take `max`, not `sum`, over gateways.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.billing.calls import UseOutcome
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.gateway.health import ANSWER_SECONDS
from imgpipe_orchestration.listings import store as listings
from imgpipe_orchestration.media.intake import with_unseen
from imgpipe_orchestration.moderation import review
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import backlog, heartbeats, stage_times
from imgpipe_orchestration.storage.backlog import QueueCounts
from imgpipe_orchestration.storage.claims import State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import allowed
from imgpipe_orchestration.web.daemon_threads import in_daemon_thread
from imgpipe_orchestration.web.request_counts import CountRequests, RequestCounts

router = APIRouter(tags=["metrics"])

KEPT_SECONDS = 5.0
"""Scrapes within so many seconds share one reading of the database."""


@router.get(
    "/metrics",
    dependencies=[Depends(allowed)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request) -> Response:
    """Prometheus' text format."""
    request.app.state.request_counts.finish()
    # A thread of its own, because those of the shared pool may all be waiting for a database that is frozen.
    text = await asyncio.wrap_future(in_daemon_thread(lambda: generate_latest(request.app.state.metrics), "metrics"))
    return Response(text, headers={"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE_LATEST})


def install(app: FastAPI, services: Services) -> RequestCounts:
    """Count the requests of `app` and serve `GET /metrics`.

    Returns:
        the counts, for middleware that answers requests before the counting middleware sees them.
    """
    registry = CollectorRegistry()
    app.state.metrics = registry
    app.state.request_counts = counts = RequestCounts(registry)
    app.add_middleware(CountRequests, counts=counts)
    registry.register(FromDatabase(services))
    registry.register(FromCache(app))
    app.include_router(router)
    return counts


class FromCache(Collector):
    """The images this gateway keeps in memory."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def collect(self) -> Iterator[Metric]:
        hits = CounterMetricFamily("imgpipe_serve_cache_hits", "Found in memory.", labels=["cache"])
        misses = CounterMetricFamily("imgpipe_serve_cache_misses", "Loaded from outside.", labels=["cache"])
        size = GaugeMetricFamily("imgpipe_serve_cache_size", "Bytes (or manifests) kept.", labels=["cache"])
        lost = CounterMetricFamily(
            "imgpipe_serve_lost_variants", "Requests for variants that the object store has not, or not whole."
        )
        hot = getattr(self._app.state, "hot", None)  # there once the app has started
        for name in ("bytes", "manifests") if hot is not None else ():
            cache = getattr(hot, name)
            hits.add_metric([name], cache.hits)
            misses.add_metric([name], cache.misses)
            size.add_metric([name], cache.size)
        lost.add_metric([], hot.lost if hot is not None else 0)
        yield from (hits, misses, size, lost)


class FromDatabase(Collector):
    """Queues, stages and paid calls."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._reading = threading.Lock()
        self._read_at = float("-inf")
        self._read: list[Metric] = []
        self._asked: Future[list[Metric]] | None = None

    def describe(self) -> list[Metric]:
        return []  # without this, registering calls `collect`, which reads the database

    def collect(self) -> list[Metric]:
        with self._reading:
            if time.monotonic() - self._read_at >= KEPT_SECONDS:
                self._read = self._in_time()
                self._read_at = time.monotonic()
            return self._read

    def _in_time(self) -> list[Metric]:
        """The database's figures. A database that does not answer within ANSWER_SECONDS is reported as down, before
        Prometheus' scrape times out and the gateway looks dead."""
        if self._asked is None or self._asked.done():
            self._asked = in_daemon_thread(self._all, "metrics-database")
        wait([self._asked], timeout=ANSWER_SECONDS)
        return self._asked.result() if self._asked.done() else [_up(0)]

    def _all(self) -> list[Metric]:
        figures: list[Metric] = []
        try:
            with transaction(self._services.engine) as connection:
                counts = listings.unless_paused(connection, backlog.counts(connection))
                for read in _READERS:
                    figures += read(connection)
            figures += _chosen(self._services.settings)
            figures += _queues(with_unseen(self._services, counts))
        except BackendUnavailable:
            return [_up(0)]
        return [_up(1), *figures]


def _up(value: int) -> Metric:
    return GaugeMetricFamily("imgpipe_database_up", "1 while the database answers.", value=value)


def _queues(queues: Mapping[str, QueueCounts]) -> list[Metric]:
    items = GaugeMetricFamily("imgpipe_queue_items", "Items by state.", labels=["queue", "state"])
    oldest = GaugeMetricFamily("imgpipe_queue_oldest_seconds", "Age of the oldest waiting item.", labels=["queue"])
    startable = GaugeMetricFamily(
        "imgpipe_queue_startable_seconds", "For how long the next item could have been begun.", labels=["queue"]
    )
    stuck = GaugeMetricFamily("imgpipe_queue_stuck_items", "Unfinished for over an hour.", labels=["queue"])
    average = GaugeMetricFamily(
        "imgpipe_queue_average_seconds", "From being put in to being done, over the last items.", labels=["queue"]
    )
    for name, counts in sorted(queues.items()):
        for state in State:
            items.add_metric([name, state.value], getattr(counts, state.value))
        oldest.add_metric([name], counts.oldest_waiting_seconds or 0)
        startable.add_metric([name], counts.startable_seconds or 0)
        stuck.add_metric([name], counts.stuck)
        if counts.average_seconds is not None:
            average.add_metric([name], counts.average_seconds)
    return [items, oldest, startable, stuck, average]


def _attempts(connection: Connection) -> list[Metric]:
    attempts = GaugeMetricFamily(
        "imgpipe_attempts_recent", "Attempts that ended in the last five minutes.", labels=["queue", "outcome"]
    )
    for one in backlog.recent_attempts(connection):
        attempts.add_metric([one.queue, one.outcome], one.count)
    return [attempts]


def _stages(connection: Connection) -> list[Metric]:
    labels = ["queue", "stage", "outcome"]
    items = CounterMetricFamily("imgpipe_stage_items", "Items that went through a stage.", labels=labels)
    seconds = CounterMetricFamily("imgpipe_stage_seconds", "Seconds a stage spent on items.", labels=labels)
    for one in stage_times.totals(connection):
        items.add_metric([one.queue, one.stage, one.outcome], one.items)
        seconds.add_metric([one.queue, one.stage, one.outcome], one.seconds)
    return [items, seconds]


def _paid_calls(connection: Connection) -> list[Metric]:
    """Counters that start again from 0 at midnight UTC. Prometheus takes that for a restart, so `increase` is right."""
    labels = ["provider", "model"]
    calls = CounterMetricFamily("imgpipe_provider_calls", "Paid calls since midnight UTC.", labels=[*labels, "outcome"])
    tokens = CounterMetricFamily("imgpipe_provider_tokens", "Tokens since midnight UTC.", labels=[*labels, "direction"])
    cost = CounterMetricFamily("imgpipe_provider_cost_usd", "US dollars since midnight UTC.", labels=labels)
    unknown = CounterMetricFamily(
        "imgpipe_provider_calls_of_unknown_cost", "Calls whose price is not known, since midnight UTC.", labels=labels
    )
    seconds = CounterMetricFamily(
        "imgpipe_provider_seconds", "Seconds waited for answers since midnight UTC.", labels=labels
    )
    for one in spending.today(connection, by=("provider", "model")):
        key = [one.provider, one.model]
        for outcome in UseOutcome:
            calls.add_metric([*key, outcome.value], getattr(one, outcome.value))
        tokens.add_metric([*key, "input"], one.input_tokens)
        tokens.add_metric([*key, "output"], one.output_tokens)
        cost.add_metric(key, float(one.cost_usd))
        unknown.add_metric(key, one.unknown_cost)
        seconds.add_metric(key, one.seconds)
    spent = CounterMetricFamily("imgpipe_pipeline_cost_usd", "US dollars since midnight UTC.", labels=["pipeline"])
    bought = CounterMetricFamily("imgpipe_pipeline_calls_bought", "Calls paid since midnight UTC.", labels=["pipeline"])
    for one in spending.today(connection, by=("pipeline",)):
        spent.add_metric([one.pipeline], float(one.cost_usd))
        bought.add_metric([one.pipeline], one.bought)
    paused = GaugeMetricFamily(
        "imgpipe_provider_paused", "1 while a provider (or provider/model) is left alone.", labels=["provider"]
    )
    for pause in spending.pauses(connection):
        paused.add_metric([pause.provider], 1)
    return [calls, tokens, cost, unknown, seconds, spent, bought, paused]


def _ticks(connection: Connection) -> list[Metric]:
    ages = GaugeMetricFamily("imgpipe_tick_age_seconds", "Since a sensor last looked for work.", labels=["pipeline"])
    for pipeline, age in heartbeats.ages(connection).items():
        ages.add_metric([pipeline], age)
    return [ages]


def _chosen(settings: Settings) -> list[Metric]:
    """Settings that alerts compare other figures with."""
    intervals = GaugeMetricFamily("imgpipe_tick_interval_seconds", "From one look to the next.", labels=["pipeline"])
    intervals.add_metric([MARKER], settings.job_interval_minutes * 60)
    budget = GaugeMetricFamily("imgpipe_daily_budget_usd", "DAILY_BUDGET_USD; missing where there is no limit.")
    if settings.daily_budget_usd:
        budget.add_metric([], settings.daily_budget_usd)
    hours = GaugeMetricFamily("imgpipe_review_hours", "REVIEW_HOURS.", value=settings.review_hours)
    return [intervals, budget, hours]


def _moderation(connection: Connection) -> list[Metric]:
    made = CounterMetricFamily(
        "imgpipe_moderation_verdicts", "Verdicts since midnight UTC, by what they are now.", labels=["state"]
    )
    figures = review.figures(connection)
    for state, number in figures.verdicts.items():
        made.add_metric([state], number)
    waiting = GaugeMetricFamily("imgpipe_review_waiting", "In the review list.", value=figures.waiting)
    oldest = GaugeMetricFamily(
        "imgpipe_review_oldest_seconds", "Age of the oldest in the review list.", value=figures.oldest_seconds
    )
    return [made, waiting, oldest]


_READERS: tuple[Callable[[Connection], list[Metric]], ...] = (_moderation, _attempts, _stages, _paid_calls, _ticks)
