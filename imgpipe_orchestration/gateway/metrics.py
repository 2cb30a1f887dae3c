"""`GET /metrics`: the figures of this gateway and of the whole back office, for Prometheus.

Requests are counted as they happen. Figures of the database (queues, stages, paid calls) are read at a scrape, by
queries that take as long with a large backlog as with a small one. Every gateway reports the same figures of the
database: take `max`, not `sum`, over gateways. Counters of a day start again from 0 at midnight UTC. Prometheus takes
that for a restart, so `increase` is right.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import Connection

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.billing.calls import UseOutcome
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.gateway.health import ANSWER_SECONDS
from imgpipe_orchestration.media.intake import queue_counts
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.operations import review
from imgpipe_orchestration.partners.daemon_threads import in_daemon_thread
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import backlog, heartbeats
from imgpipe_orchestration.storage.backlog import QueueCounts
from imgpipe_orchestration.storage.claims import State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["metrics"])

Rows = Iterable[tuple[Sequence[str], float]]
"""Values by the values of the labels."""


@router.get(
    "/metrics",
    dependencies=[Depends(allowed)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}},
)
async def metrics(request: Request, services: ServicesDep) -> Response:
    """Prometheus' text format. A database that does not answer within ANSWER_SECONDS is reported as down, before
    Prometheus' scrape times out and the gateway looks dead."""
    state = request.app.state
    # Scrapes share a reading that is under way. In a thread of its own, because those of the shared pool may all be
    # waiting for a database that is frozen.
    asked = state.figures
    if asked is None or asked.done():
        asked = state.figures = in_daemon_thread(partial(_of_database, services), "metrics")
    await asyncio.wait([asyncio.wrap_future(asked)], timeout=ANSWER_SECONDS)
    figures = asked.result() if asked.done() else [_up(0)]
    read = _Read([*state.requests.collect(), *figures, *_of_cache(state.hot)])
    text = await asyncio.wrap_future(in_daemon_thread(partial(generate_latest, read), "metrics"))
    return Response(text, headers={"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE_LATEST})


class _Read(Collector):
    """Figures that were read for a scrape."""

    def __init__(self, figures: Sequence[Metric]) -> None:
        self._figures = figures

    def collect(self) -> Sequence[Metric]:
        return self._figures


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily], name: str, told: str, labels: str, rows: Rows
) -> Metric:
    family = kind(name, told, labels=labels.split())
    for key, value in rows:
        family.add_metric(key, value)
    return family


_gauge, _counter = partial(_family, GaugeMetricFamily), partial(_family, CounterMetricFamily)


def _of_cache(hot: HotImages) -> Iterator[Metric]:
    """The images this gateway keeps in memory."""
    caches = {"bytes": hot.bytes, "manifests": hot.manifests}
    hits, misses, sizes = (
        [((name,), getattr(cache, figure)) for name, cache in caches.items()] for figure in ("hits", "misses", "size")
    )
    yield _counter("imgpipe_serve_cache_hits", "Found in memory.", "cache", hits)
    yield _counter("imgpipe_serve_cache_misses", "Loaded from outside.", "cache", misses)
    yield _gauge("imgpipe_serve_cache_size", "Bytes (or manifests) kept.", "cache", sizes)
    told = "Requests for variants whose objects are missing or damaged."
    yield _counter("imgpipe_serve_lost_variants", told, "", [((), hot.lost)])


def _of_database(services: Services) -> list[Metric]:
    """Queues, stages and paid calls."""
    try:
        with transaction(services.engine) as connection:
            figures = [*_work(connection), *_paid_calls(connection)]
        counts = queue_counts(services)
    except BackendUnavailable:
        return [_up(0)]
    return [_up(1), *figures, *_chosen(services.settings), *_queues(counts)]


def _up(value: int) -> Metric:
    return _gauge("imgpipe_database_up", "1 while the database answers.", "", [((), value)])


def _queues(queues: Mapping[str, QueueCounts]) -> Iterator[Metric]:
    every = sorted(queues.items())
    states = [((name, state.value), getattr(counts, state.value)) for name, counts in every for state in State]
    yield _gauge("imgpipe_queue_items", "Items by state.", "queue state", states)

    def of_each(name: str, told: str, figure: str) -> Metric:
        return _gauge(name, told, "queue", [((queue,), getattr(counts, figure) or 0) for queue, counts in every])

    yield of_each("imgpipe_queue_oldest_seconds", "Age of the oldest waiting item.", "oldest_waiting_seconds")
    yield of_each("imgpipe_queue_stuck_items", "Unfinished for over an hour.", "stuck")
    told = "From queued to done, over the last items."
    took = [((name,), counts.average_seconds) for name, counts in every if counts.average_seconds is not None]
    yield _gauge("imgpipe_queue_average_seconds", told, "queue", took)


def _work(connection: Connection) -> Iterator[Metric]:
    rows = [((one.queue, one.outcome), one.n) for one in backlog.recent_attempts(connection)]
    yield _gauge("imgpipe_attempts_recent", "Attempts that ended in the last five minutes.", "queue outcome", rows)
    totals = {(one.queue, one.stage, one.outcome): one for one in backlog.stage_times(connection)}
    items, seconds = ([(key, getattr(one, figure)) for key, one in totals.items()] for figure in ("items", "seconds"))
    labels = "queue stage outcome"
    yield _counter("imgpipe_stage_items", "Items that went through a stage.", labels, items)
    yield _counter("imgpipe_stage_seconds", "Seconds a stage spent on items.", labels, seconds)
    ages = [((pipeline,), age) for pipeline, age in heartbeats.ages(connection).items()]
    yield _gauge("imgpipe_tick_age_seconds", "Since a sensor last looked for work.", "pipeline", ages)
    figures = review.figures(connection)
    told = "Verdicts since midnight UTC, by what they are now."
    verdicts = [((state,), number) for state, number in figures.verdicts.items()]
    yield _counter("imgpipe_moderation_verdicts", told, "state", verdicts)
    yield _gauge("imgpipe_review_waiting", "In the review list.", "", [((), figures.waiting)])
    told = "Age of the oldest in the review list."
    yield _gauge("imgpipe_review_oldest_seconds", told, "", [((), figures.oldest_seconds)])


def _paid_calls(connection: Connection) -> Iterator[Metric]:
    labels, since, today = "provider model", "since midnight UTC.", datetime.now(UTC).date()
    models = spending.between(connection, today, today, ["provider", "model"])
    spent = {(one.provider, one.model): one for one in models}
    calls = [
        ((*key, outcome.value), getattr(one, outcome.value)) for key, one in spent.items() for outcome in UseOutcome
    ]
    yield _counter("imgpipe_provider_calls", f"Paid calls {since}", f"{labels} outcome", calls)
    tokens = [((*key, "input"), one.input_tokens) for key, one in spent.items()]
    tokens += [((*key, "output"), one.output_tokens) for key, one in spent.items()]
    yield _counter("imgpipe_provider_tokens", f"Tokens {since}", f"{labels} direction", tokens)
    for name, told, figure in (
        ("imgpipe_provider_cost_usd", "US dollars", "cost_usd"),
        ("imgpipe_provider_calls_of_unknown_cost", "Calls whose price is not known,", "unknown_cost"),
        ("imgpipe_provider_seconds", "Seconds waited for answers", "seconds"),
    ):
        yield _counter(
            name, f"{told} {since}", labels, [(key, float(getattr(one, figure))) for key, one in spent.items()]
        )
    pipelines = spending.between(connection, today, today, ["pipeline"])
    costs = [((one.pipeline,), float(one.cost_usd)) for one in pipelines]
    yield _counter("imgpipe_pipeline_cost_usd", f"US dollars {since}", "pipeline", costs)
    told = "1 while a provider (or provider/model) is left alone."
    yield _gauge("imgpipe_provider_paused", told, "provider", [((p.provider,), 1) for p in spending.pauses(connection)])


def _chosen(settings: Settings) -> Iterator[Metric]:
    """Settings that alerts compare other figures with."""
    minutes = settings.job_interval_minutes
    yield _gauge("imgpipe_tick_interval_seconds", "From one look to the next.", "pipeline", [((MARKER,), minutes * 60)])
    budget = [((), settings.daily_budget_usd)] if settings.daily_budget_usd else []
    yield _gauge("imgpipe_daily_budget_usd", "DAILY_BUDGET_USD; missing where there is no limit.", "", budget)
    yield _gauge("imgpipe_review_hours", "REVIEW_HOURS.", "", [((), settings.review_hours)])
