"""Processing a queue of the media pipeline: a batch of claims, or everything that is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection

from imgpipe_orchestration.errors import BadImage, ImgpipeError, Retryable, TooLarge
from imgpipe_orchestration.media import pending, store
from imgpipe_orchestration.media.model import PendingStatus, Step
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Item, Queue, State
from imgpipe_orchestration.storage.work import OnFailure, Outcome, work_through

Result = TypeVar("Result")

WAITING_THREADS = 16
"""Threads of stages that mostly wait for a partner or the object store."""
BATCH = 200
"""Items claimed at a time from a queue that is drained."""


def drive(
    services: Services,
    queue: Queue,
    batch: Sequence[Claim],
    work: Callable[[Services, Claim], Result],
    *,
    threads: int = WAITING_THREADS,
    stage: str = "",
    on_failure: OnFailure | None = None,
    deadline: float | None = None,
) -> tuple[Outcome, list[Result]]:
    """Process a batch and collect results; no item is begun after the deadline.

    Args:
        stage, on_failure: see `work_through`.
        deadline: of `time.monotonic()`; a run's time budget from now by default.
    """
    results: list[Result] = []
    outcome = work_through(
        services.claims,
        queue,
        batch,
        lambda claim: results.append(work(services, claim)),
        threads=threads,
        deadline=deadline or time.monotonic() + services.settings.media_run_seconds,
        on_failure=on_failure,
        stage=stage,
    )
    return outcome, results


def drive_step(
    services: Services,
    step: Step,
    batch: Sequence[Claim],
    work: Callable[[Services, Claim], Result],
    *,
    threads: int = WAITING_THREADS,
) -> tuple[Outcome, list[Result]]:
    """As `drive`, for a step of the checklist, which counts failed tries; with the last one the upload fails too."""

    def note(connection: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
        final = state is State.FAILED
        store.step_failed(connection, claim, step, final=final, counts=spends(error))
        if not final:
            return
        media = store.media_file(connection, claim.item_id)
        with pending.joined(services, connection) as where:
            unless = [PendingStatus.PROCESSED, PendingStatus.COMPLETE]
            pending.mark(where, [media.main_api_id], PendingStatus.FAILED, unless=unless)
        # A clean-up deletes the upload, so only for a bad image.
        if services.foreign_main_api and isinstance(error, BadImage | TooLarge):
            item = Item(media.main_api_id, tenant=str(media.user_id))
            services.claims.enqueue(connection, store.CLEANUPS, [item], again=True)

    queue = replace(store.MEDIA, max_attempts=services.settings.media_max_attempts)
    return drive(services, queue, batch, work, threads=threads, stage=step.value, on_failure=note)


def drain(
    services: Services, owner: str, queue: Queue, work: Callable[[Services, Claim], Result], *, partition: str = ""
) -> tuple[Outcome, list[Result]]:
    """Process everything that is due in a queue, batch by batch, until the time budget is over.

    The rest is left to later runs, so that a backfill's images do not keep uploads waiting.
    """
    claims = services.claims
    total, results = Outcome(), list[Result]()
    over = time.monotonic() + services.settings.media_run_seconds
    while batch := claims.owned(queue, owner) + claims.claim(queue, owner, BATCH, partition=partition):
        outcome, part = drive(services, queue, batch, work, deadline=over)
        total.add(outcome)
        results += part
        if not outcome.done or time.monotonic() >= over:
            break  # a backend is away, so that the rest would fail as well; or the time is over
    return total, results


def spends(error: ImgpipeError) -> bool:
    """Whether a failure counts as a try of the step: not if a backend or a budget was the reason."""
    return not isinstance(error, Retryable) or error.spends_attempt
