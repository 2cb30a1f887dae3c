"""What each stage of a run did, the loop that drains a stage's queue, and analyses that go on when a provider fails. No
Dagster in here."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sqlalchemy import text

from imgpipe_orchestration.errors import Conflict, ImgpipeError, NotFound, Retryable
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import order_second_opinions
from imgpipe_orchestration.media.model import Step, StepState
from imgpipe_orchestration.media.steps.analyse import analyse
from imgpipe_orchestration.media.steps.callback import report
from imgpipe_orchestration.media.steps.resize import hints
from imgpipe_orchestration.storage import work
from imgpipe_orchestration.storage.claims import Claim, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

Figures = Mapping[str, float] | None
"""What a step tells of one image: numbers to be added up."""

RUN_SECONDS = 300.0
"""Time budget of a run, and of what it makes again."""
WAITING_THREADS = 16
"""Threads of stages that mostly wait for a partner or the object store."""
BATCH = 200
"""Items claimed at a time from a queue that is drained."""


@dataclass
class Stage:
    """What one stage did, for the run's metadata."""

    outcome: Outcome = field(default_factory=Outcome)
    figures: dict[str, float] = field(default_factory=dict)
    """Those of single images, added up, and of the stage."""
    spent: dict[int, float] = field(default_factory=dict)
    """Seconds by media id."""
    began: float = 0.0
    """When the first image began, by `time.monotonic()`."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, figures: Figures) -> None:
        """Add what one image or batch told. Thread-safe."""
        with self._lock:
            for name, value in (figures or {}).items():
                self.figures[name] = self.figures.get(name, 0) + value

    def join(self, other: "Stage") -> None:
        """Add what another batch told."""
        self.outcome.add(other.outcome)
        self.add(other.figures)


def analyse_anyway(services: Services, claim: Claim) -> Figures:
    """Analyse an image. A provider's failure does not stop it: it is recorded in the checklist and healed later."""
    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
    found = analyse(services, media)
    error = found.error()
    with services.claims.fenced(claim) as connection:
        store.save_analysis(connection, media.id, found.values)
        state, counts = (StepState.FAILED, spends(error)) if error else (StepState.COMPLETED, True)
        store.step_ended(connection, claim, Step.AI_VISUAL_ANALYSIS, state, counts=counts)
        services.claims.progress(connection, claim)
        order_second_opinions(services, connection, media)
    return found.figures()


def analyse_again(services: Services, claim: Claim, *, queue: Queue) -> Figures:
    """Analyse a finished image again. If its analysis had failed and no provider fails now, it counts as healed and is
    reported again. If the subject moved, the crops are remade.

    Raises:
        InBatch: the queue's images are not urgent, and an answer is not there yet.
        Retryable, Permanent: a provider still fails; the answers of the others are stored.
    """
    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
        ill = store.checklist(connection, media.id)[Step.AI_VISUAL_ANALYSIS] is StepState.FAILED
    found = analyse(services, media, urgent=queue is not store.UNHURRIED_ANALYSIS)
    with services.claims.fenced(claim) as connection:
        known = hints(media, store.analysis(connection, media.id))
        # Where the description stays, so does its vector.
        if "openai_vision" in found.errors and connection.scalar(_HAS_VECTOR, {"id": media.id}):
            found.values.pop("embedding", None)
        store.save_analysis(connection, media.id, found.values)
        if known.manual is None and hints(media, store.analysis(connection, media.id)) != known:
            item = Item(media.id, str(media.user_id), media.upload_day.isoformat())
            services.claims.enqueue(connection, store.REMAKE_VARIANTS, [item], again=True)
    error = found.error()
    if error is not None:
        raise error
    if ill:
        try:
            report(services, media.id)
        except (Conflict, NotFound) as refused:
            log.info("no second report wanted", extra={"media_id": media.id, "error": refused.public})
    with services.claims.fenced(claim) as connection:
        if ill:
            store.step_ended(connection, claim, Step.AI_VISUAL_ANALYSIS, StepState.COMPLETED)
        services.claims.finish(connection, queue, claim)
    return found.figures()


_HAS_VECTOR = text("select embedding is not null from media_ai_analysis where media_id = :id")


def drain(
    services: Services,
    owner: str,
    queue: Queue,
    step: Callable[[Services, Claim], Figures],
    *,
    partition: str = "",
    seconds: float = RUN_SECONDS,
) -> Stage:
    """Work through what is due in a queue. What the time budget leaves is left to later runs, so that a backfill's
    images do not keep uploads waiting.

    Args:
        seconds: the time budget, after which no item is begun.
    """
    stage = Stage()
    stage.outcome = work.drain(
        services.claims,
        queue,
        owner,
        lambda claim: stage.add(step(services, claim)),
        threads=WAITING_THREADS,
        batch_size=BATCH,
        partition=partition,
        seconds=seconds,
    )
    return stage


def spends(error: ImgpipeError) -> bool:
    """Whether a failure counts as a try of the step: not if a backend or a budget was the reason."""
    return not isinstance(error, Retryable) or error.spends_attempt
