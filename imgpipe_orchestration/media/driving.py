"""Working through a queue of the media pipeline: a batch of claims, or all that is due."""

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
from imgpipe_orchestration.storage.work import Outcome, work_through

Result = TypeVar("Result")

WAITING_THREADS = 16
"""Threads of stages that mostly wait for a partner or the object store."""
BATCH = 200
"""Items taken at once from a queue that is drained."""


def drive(
    backends: Services,
    queue: Queue,
    step: Step | None,
    batch: Sequence[Claim],
    work: Callable[[Claim], Result],
    *,
    threads: int,
    bounded: bool = True,
) -> tuple[Outcome, list[Result]]:
    """Work through a batch, gathering results, counting failed tries of `step`.

    Args:
        bounded: begin nothing past the run's time budget; not for a stage that must leave no finished work unreported.
    """
    results: list[Result] = []

    def one(claim: Claim) -> None:
        results.append(work(claim))

    def note(connection: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
        if step is not None:
            store.step_failed(connection, claim, step, final=state is State.FAILED, counts=spends(error))
        if queue is store.MEDIA and state is State.FAILED:
            media = store.media_file(connection, claim.item_id)
            with pending.joined(backends, connection) as where:
                unless = [PendingStatus.PROCESSED, PendingStatus.COMPLETE]
                pending.mark(where, [media.main_api_id], PendingStatus.FAILED, unless=unless)
            # It deletes the upload, which only an image that is itself at fault deserves.
            if backends.foreign_main_api and isinstance(error, BadImage | TooLarge):
                item = Item(media.main_api_id, tenant=str(media.user_id))
                backends.claims.enqueue(connection, store.CLEANUPS, [item], again=True)

    deadline = time.monotonic() + backends.settings.media_run_seconds if bounded else None
    stage = step.value if step is not None else queue.name
    tries = backends.settings.media_max_attempts if queue is store.MEDIA else queue.max_attempts
    outcome = work_through(
        backends.claims,
        replace(queue, max_attempts=tries),
        batch,
        one,
        threads=threads,
        deadline=deadline,
        on_failure=note,
        stage=stage,
    )
    return outcome, results


def drain(
    backends: Services, owner: str, queue: Queue, work: Callable[[Claim], Result], *, partition: str = ""
) -> tuple[Outcome, list[Result]]:
    """Work through all of a queue that is due, batch by batch. What is left when the run's time budget is over is for
    later runs, or a backfill's images would keep uploads waiting."""
    claims = backends.claims
    total, results = Outcome(), list[Result]()
    over = time.monotonic() + backends.settings.media_run_seconds
    while batch := claims.owned(queue, owner) + claims.claim(queue, owner, BATCH, partition=partition):
        outcome, part = drive(backends, queue, None, batch, work, threads=WAITING_THREADS)
        total.add(outcome)
        results += part
        if not outcome.done or time.monotonic() >= over:
            break  # a backend is away, and the rest would fare alike; or the time is up
    return total, results


def spends(error: ImgpipeError) -> bool:
    """Whether a failure counts as one of the step's tries: not when a backend or a budget is the reason."""
    return not isinstance(error, Retryable) or error.spends_attempt
