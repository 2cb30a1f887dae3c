"""Works on the analyses of one run.

Each analysis has a thread, in which it also waits for its batch. After PATIENCE_SECONDS of waiting it goes back into
the queue with the time of its next poll, so that its thread is free for another; the batch goes on meanwhile.

What becomes due meanwhile joins, and one organization has only SHARE of the threads, so that nobody waits for the slow
documents of another. The lists of due executions have threads and a share of their own. Downloads end when their
analysis is withdrawn, when the run is stopped or after DOWNLOAD_SECONDS.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from imgpipe_orchestration.errors import ImgpipeError, LeaseLost, Retryable
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, Watch, work_through, working_as
from imgpipe_orchestration.vision_reports import analyses, cron_jobs, executions
from imgpipe_orchestration.vision_reports.listing import fetch_list
from imgpipe_orchestration.vision_reports.model import StillWaiting
from imgpipe_orchestration.vision_reports.steps import AnalysisWorker

if TYPE_CHECKING:
    from imgpipe_orchestration.wiring.services import Services

THREADS, SHARE = 64, 12
"""Analyses that a run works on at once, and how many of them are one organization's. Each may hold a picture of
IMAGE_BYTES."""
PATIENCE_SECONDS = 60.0
"""How long an analysis waits for its batch before it leaves its thread to another."""
LISTS, LISTS_SHARE = 16, 4
"""Lists that are read at once, and how many of them are one organization's."""
RUN_SECONDS = 600.0
"""Time budget of a run. After it nothing is begun, and another run may be beside it."""
DOWNLOAD_SECONDS = 2700.0
"""How long an analysis's downloads may take in all. With RUN_SECONDS less than Dagster's `max_runtime_seconds`."""
_LEAST_PAUSE = 5.0
"""Seconds until an analysis that left its thread is due again, at least."""
_LOOK = 1.0
"""Seconds between looks for what became due while nothing but lists are at work."""


def is_due(services: Services) -> bool:
    """Whether a cron job, the listing of an execution or an analysis is due."""
    with transaction(services.engine) as rows:
        if cron_jobs.any_due(rows):
            return True
    return any(services.claims.due_partitions(queue, limit=1) for queue in (executions.QUEUE, analyses.QUEUE))


class Crew:
    """Works under the claims of one owner. Renews their leases until `opened` is closed, and then gives back what it
    has not ended.

    Args:
        opened: closes the connections to partners.
    """

    def __init__(self, services: Services, owner: str, opened: ExitStack) -> None:
        self._services = services
        self._claims = services.claims
        self._owner = owner
        self._deadline = time.monotonic() + RUN_SECONDS
        self._stop = threading.Event()
        opened.enter_context(working_as(services.claims, owner))
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="vision-lists")
        # At the end nothing more is begun; what is being read ends by itself.
        opened.callback(self._reader.shutdown, wait=False, cancel_futures=True)
        self._lists: list[Future[Outcome]] = []
        self._worker = AnalysisWorker(services, opened)

    def deliver(self, held: Sequence[Claim], *, joining: bool) -> tuple[Outcome, Outcome]:
        """Work on these analyses until each is delivered, fails, or is left to a later run. Returns what became of the
        analyses, and of the lists.

        Args:
            joining: also on what is due or becomes due meanwhile, and on what the lists of due executions have.
        """
        outcome = work_through(
            self._claims,
            analyses.QUEUE,
            held,
            self._advance,
            threads=THREADS,
            share=SHARE,
            deadline=self._deadline,
            further=self._due if joining else None,
            interrupted=self._stop,
        )
        for ended in (*(claim.item_id for claim in outcome.done), *outcome.failed):
            outcome.retried.pop(ended, None)  # it came back after a pause
        lists = Outcome()
        for read in self._lists:
            lists.add(read.result())
        return outcome, lists

    def _due(self, free: int, full: Collection[str]) -> Sequence[Claim]:
        """Further analyses. While nothing else is at work it waits for the lists, because the run ends without any."""
        while True:
            listing = self._listing()
            claimed = self._claims.claim(analyses.QUEUE, self._owner, min(free, SHARE), but=full)
            executions.note_run(self._services.engine, claimed)
            if claimed or free < THREADS or not listing:
                return claimed
            time.sleep(_LOOK)

    def _listing(self) -> bool:
        """Begin to read the lists that are due, unless lists are being read. Whether any are."""
        if all(read.done() for read in self._lists) and (due := self._due_lists(LISTS, ())):
            self._lists.append(self._reader.submit(self._read, due))
        return not all(read.done() for read in self._lists)

    def _read(self, due: Sequence[Claim]) -> Outcome:
        return work_through(
            self._claims,
            executions.QUEUE,
            due,
            partial(fetch_list, self._services),
            threads=LISTS,
            share=LISTS_SHARE,
            further=self._due_lists,
            deadline=self._deadline,
        )

    def _due_lists(self, free: int, full: Collection[str]) -> Sequence[Claim]:
        executions.start_due(self._services.engine, self._claims)
        due = self._claims.claim(executions.QUEUE, self._owner, free, but=full)
        executions.note_run(self._services.engine, due)
        return due

    def _advance(self, claim: Claim) -> None:
        stopped = self._stopped(claim)
        patient_until: float | None = None
        while True:
            try:
                return self._worker.advance(claim, stopped)
            except StillWaiting as error:
                waits, pause = error, error.retry_after or 0.0
            now = time.monotonic()
            if patient_until is None:
                patient_until = min(now + PATIENCE_SECONDS, self._deadline)
            if now + pause > patient_until:
                waits.retry_after = max(pause, _LEAST_PAUSE)
                raise waits
            if self._stop.wait(pause):
                raise LeaseLost("The run has ended.")

    def _stopped(self, claim: Claim) -> Callable[[], ImgpipeError | None]:
        """Why the downloads of an analysis are to end, or None."""
        lost, deadline = Watch(self._claims, claim), time.monotonic() + DOWNLOAD_SECONDS

        def why() -> ImgpipeError | None:
            if self._stop.is_set():
                return LeaseLost("The run has ended.")
            if time.monotonic() >= deadline:
                return Retryable(f"Its documents took longer than {DOWNLOAD_SECONDS:,.0f} s")
            return lost()

        return why
