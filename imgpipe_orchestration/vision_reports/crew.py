"""Works on the analyses of one run.

Each analysis has a thread, in which it also waits for its batch. At most PARALLEL_ANALYSES of them work at once
(download, submit, poll, upload), a quarter of them for one organization, while hundreds may wait. When no analysis has
made progress for `patience` seconds, those that wait are put back into the queue with the time of their next poll, and
a later run goes on with them.

What becomes due meanwhile joins, so that nobody waits for the slow documents of another organization. Downloads end
when their analysis is withdrawn, when the run is stopped or its time is over, and after a while when others wait for a
place.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from imgpipe_orchestration.errors import ImgpipeError, LeaseLost
from imgpipe_orchestration.storage.claims import Claim, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, Shares, Watch, work_through
from imgpipe_orchestration.vision_reports import analyses, cron_jobs, executions
from imgpipe_orchestration.vision_reports.listing import Lists
from imgpipe_orchestration.vision_reports.model import (
    AT_ONCE,
    PARALLEL_ANALYSES,
    NoReport,
    OutOfTime,
    StillWaiting,
    share_of,
)
from imgpipe_orchestration.vision_reports.steps import AnalysisWorker

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

PATIENCE_SECONDS = 60.0
"""How long a run waits for batches before it leaves them to a later run."""
RUN_SECONDS = 600.0
"""Time budget of a run; after it nothing is begun, and slow downloads are put off."""
_HELD = 20.0
"""Seconds for which a download keeps its place while other organizations wait for one."""
_LOOK = 1.0
"""Seconds between looks for what became due while nothing but lists are at work."""


def is_due(services: Services) -> bool:
    """Whether a cron job, the listing of an execution or an analysis is due; three index look-ups."""
    with transaction(services.engine) as rows:
        if cron_jobs.any_due(rows):
            return True
    return any(services.claims.due_partitions(queue, limit=1) for queue in (executions.QUEUE, analyses.QUEUE))


class Crew:
    """Works under the claims of one owner, and renews their leases until `opened` is closed.

    Args:
        opened: closes the connections to partners.
        patience: how long to wait for unfinished batches after the last progress of any analysis, seconds.
        seconds: time budget; after it nothing is begun, and downloads end.
    """

    def __init__(
        self, services: Services, owner: str, opened: ExitStack, *, patience: float, seconds: float = math.inf
    ) -> None:
        self._services = services
        self._claims = services.claims
        self._owner = owner
        self._patience = patience
        self._places = Shares(PARALLEL_ANALYSES, share_of(PARALLEL_ANALYSES))
        self._deadline = time.monotonic() + seconds
        self._last_progress = time.monotonic()
        self._stop = threading.Event()
        self.waiting: set[int] = set()
        """Analyses whose batch was not finished when `patience` was over."""
        opened.enter_context(services.claims.hold(owner))
        self.lists = Lists(services, owner, opened, self._deadline)
        self._worker = AnalysisWorker(services, opened)

    def deliver(self, held: Sequence[Claim], *, joining: bool = False) -> Outcome:
        """Work on these analyses until each is delivered, fails, or has waited for `patience`.

        Args:
            joining: also on what is due or becomes due meanwhile, and on what the lists of due executions have.
        """

        def further(free: int, full: Collection[str]) -> Sequence[Claim]:
            if not joining or time.monotonic() >= self._deadline:
                return []
            self.lists.look()
            claimed = self._claims.claim(analyses.QUEUE, self._owner, free, but=full)
            executions.note_run(self._services.engine, claimed)
            return claimed

        outcome = Outcome()
        while True:
            listing = self.lists.at_work
            batch = [*held, *further(AT_ONCE - len(held), ())]
            outcome.add(
                work_through(
                    self._claims,
                    analyses.QUEUE,
                    batch,
                    self._until_ended,
                    threads=AT_ONCE,
                    share=AT_ONCE // 2,
                    further=further,
                    on_failure=_order_anew,
                    interrupted=self._stop,
                )
            )
            if not batch and not listing and not self.lists.at_work:
                break
            held = []
            self.lists.wait(_LOOK)
        self.lists.sum_up()
        for ended in (*(claim.item_id for claim in outcome.done), *outcome.failed):
            outcome.retried.pop(ended, None)  # it came back after a pause
        return outcome

    def told(self, outcome: Outcome) -> dict[int, tuple[str, str]]:
        """Of the analyses that were worked on, by their numbers: their names for people, and what became of them."""
        ends = dict.fromkeys((claim.item_id for claim in outcome.done), "delivered")
        ends |= {item: f"failed: {why}" for item, why in outcome.failed.items()}
        ends |= dict.fromkeys(outcome.lost, "another run took it over")
        with transaction(self._services.engine) as rows:
            for item, why in outcome.retried.items():
                if item in self.waiting:
                    ends[item] = f"not finished yet: {why}"
                else:
                    later = executions.with_next_try(rows, analyses.QUEUE.name, item, why)
                    ends[item] = f"not delivered yet: {later}"
            names = analyses.names(rows, list(ends))
        return {item: (name, ends[item]) for item, name in names.items()}

    def _until_ended(self, claim: Claim) -> None:
        self.waiting.discard(claim.item_id)
        try:
            self._advance(claim)
        finally:
            if claim.item_id not in self.waiting:
                self._last_progress = time.monotonic()

    def _advance(self, claim: Claim) -> None:
        while True:
            with self._places.place(claim.tenant):
                if self._stop.is_set():
                    raise LeaseLost("The run has ended.")
                if time.monotonic() >= self._deadline:
                    raise OutOfTime("The run's time was over before its turn came", retry_after=1.0)
                try:
                    return self._worker.advance(claim, self._stopped(claim))
                except StillWaiting as error:
                    waits, pause = error, error.retry_after or 0.0
            until = time.monotonic() + pause
            if until - self._last_progress > self._patience or until > self._deadline:
                self.waiting.add(claim.item_id)
                waits.retry_after = max(pause, 15.0)
                raise waits
            self._stop.wait(pause)

    def _stopped(self, claim: Claim) -> Callable[[], ImgpipeError | None]:
        """Why a download of an analysis that has just got its place is to end, or None."""
        lost, until = Watch(self._claims, claim), time.monotonic() + _HELD

        def why() -> ImgpipeError | None:
            now = time.monotonic()
            if self._stop.is_set():
                return LeaseLost("The run has ended.")
            if now >= self._deadline:
                return OutOfTime("Its documents come slowly, and the run's time is over", retry_after=15.0)
            if now >= until and self._places.crowded(claim.tenant):
                return OutOfTime("Its documents come slowly, and others waited", retry_after=15.0)
            return lost()

        return why


def _order_anew(rows: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
    """When an analysis fails because its batch has no report, let a later requeue submit a new batch."""
    if state is State.FAILED and isinstance(error, NoReport):
        analyses.forget_batch(rows, claim.item_id)
