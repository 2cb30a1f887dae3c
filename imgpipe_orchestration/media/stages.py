"""What the stages of a run do with a queue and tell of it, and the analyses that a provider's failure does not stop. No
Dagster in here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from imgpipe_orchestration.errors import Conflict, ImgpipeError, NotFound, Retryable
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import order_second_opinions
from imgpipe_orchestration.media.model import Step, StepState
from imgpipe_orchestration.media.steps.analyse import Analysis, analyse
from imgpipe_orchestration.media.steps.callback import report
from imgpipe_orchestration.media.steps.resize import Resized, hints
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import work
from imgpipe_orchestration.storage.claims import Claim, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

Result = TypeVar("Result")

RUN_SECONDS = 300.0
"""Time budget of a run, and of what it makes again."""
WAITING_THREADS = 16
"""Threads of stages that mostly wait for a partner or the object store."""
BATCH = 200
"""Items claimed at a time from a queue that is drained."""


@dataclass
class Stage:
    """What one stage did, for the run's metadata."""

    outcome: Outcome
    figures: dict[str, float] = field(default_factory=dict)
    sheet: list[tuple[int, bytes]] = field(default_factory=list)
    """(media id, encoded thumbnail) of each image that was made."""
    not_ready: int = 0
    """How many images wait for an earlier stage, which the run does not have."""
    again: Stage | None = None
    """What it made again."""


def totals(figures: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The figures of single images, added up."""
    total: dict[str, float] = {}
    for one in figures:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value
    return {name: round(value, 2) for name, value in total.items()}


def analysed(outcome: Outcome, found: Sequence[Analysis], healing: Outcome, healed: Sequence[Analysis]) -> Stage:
    """The stage's totals (answers, failures by provider), with those of the images that were healed."""
    figures: dict[str, float] = {
        "answers_bought": sum(a.bought for a in (*found, *healed)),
        "answers_reused": sum(a.reused for a in (*found, *healed)),
        "healed": len(healed),
        "still_to_heal": len(healing.retried) + len(healing.failed),
    }
    failures = Counter(name for a in found for name in a.errors)
    return Stage(outcome, figures | {f"failed_{name}": n for name, n in failures.items()})


def resized(outcome: Outcome, made: Sequence[Resized]) -> Stage:
    """The stage's totals (variants, bytes by format), and its contact sheet."""
    figures = {"variants": 0.0, "megabytes_originals": 0.0} | totals(one.figures for one in made)
    return Stage(outcome, figures, [(one.media_id, one.thumbnail) for one in made])


def analyse_anyway(services: Services, claim: Claim) -> Analysis:
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
    return found


def analyse_again(services: Services, claim: Claim, *, queue: Queue) -> Analysis:
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
    return found


def drain(
    services: Services,
    owner: str,
    queue: Queue,
    step: Callable[[Services, Claim], Result],
    *,
    partition: str = "",
    seconds: float = RUN_SECONDS,
    most: int | None = None,
) -> tuple[Outcome, list[Result]]:
    """Work through what is due in a queue, and collect the results. What the time budget leaves is left to later runs,
    so that a backfill's images do not keep uploads waiting.

    Args:
        seconds: the time budget, after which no item is begun.
        most: only one batch, of so many items.
    """
    results: list[Result] = []
    outcome = work.drain(
        services.claims,
        queue,
        owner,
        lambda claim: results.append(step(services, claim)),
        threads=WAITING_THREADS,
        batch_size=most or BATCH,
        once=most is not None,
        partition=partition,
        seconds=seconds,
    )
    return outcome, results


def spends(error: ImgpipeError) -> bool:
    """Whether a failure counts as a try of the step: not if a backend or a budget was the reason."""
    return not isinstance(error, Retryable) or error.spends_attempt
