"""Processing a queue of the media pipeline: a batch of claims, or everything that is due."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from imgpipe_orchestration.errors import ImgpipeError, Retryable
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Queue
from imgpipe_orchestration.storage.work import Outcome, work_through

Result = TypeVar("Result")

RUN_SECONDS = 300.0
"""Time budget of a run, and of what it makes again."""
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
    deadline: float | None = None,
) -> tuple[Outcome, list[Result]]:
    """Process a batch and collect results; no item is begun after the deadline.

    Args:
        deadline: of `time.monotonic()`; a run's time budget from now by default.
    """
    results: list[Result] = []
    outcome = work_through(
        services.claims,
        queue,
        batch,
        lambda claim: results.append(work(services, claim)),
        threads=WAITING_THREADS,
        deadline=deadline or time.monotonic() + RUN_SECONDS,
    )
    return outcome, results


def drain(
    services: Services,
    owner: str,
    queue: Queue,
    work: Callable[[Services, Claim], Result],
    *,
    partition: str = "",
    seconds: float | None = None,
) -> tuple[Outcome, list[Result]]:
    """Process everything that is due in a queue, batch by batch, until the time budget is over.

    The rest is left to later runs, so that a backfill's images do not keep uploads waiting.

    Args:
        seconds: the time budget; by default that of a run.
    """
    claims = services.claims
    total, results = Outcome(), list[Result]()
    over = time.monotonic() + (RUN_SECONDS if seconds is None else seconds)
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
