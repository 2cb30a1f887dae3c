"""Works on the analyses of one run.

Each analysis has a thread of its own (a step of the run), in which it waits for its batch. At most
VISION_PARALLEL_ANALYSES of these threads work at once (download, submit, poll, upload), a quarter of them for one
organization, while hundreds may wait. When no analysis has made progress for `patience` seconds, those that wait are
put back into the queue with the time of their next poll, and a later run goes on with them.

What becomes due meanwhile joins (`latecomers`), so that nobody waits for the slow documents of another organization.
Downloads end when their analysis is withdrawn, when the run's time is over, and after a while when others wait for a
place.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from sqlalchemy import Connection

from imgpipe_orchestration.errors import ImgpipeError, LeaseLost
from imgpipe_orchestration.storage.claims import Claim, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.shares import Shares
from imgpipe_orchestration.storage.work import Watch, work_through
from imgpipe_orchestration.vision_reports import analyses, executions
from imgpipe_orchestration.vision_reports.batch_work import BatchWorker
from imgpipe_orchestration.vision_reports.lists import Lists
from imgpipe_orchestration.vision_reports.model import AT_ONCE, NoReport, OutOfTime, StillWaiting, share_of
from imgpipe_orchestration.vision_reports.steps import AnalysisWorker

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services


class End(StrEnum):
    """How the work on an analysis ended in one run."""

    DONE = "done"  # its report is delivered
    WAITING = "waiting"  # the backend has not finished; a later run polls again
    RETRY = "retry"  # it failed, and is tried again
    FAILED = "failed"  # given up
    LOST = "lost"  # another run works on it


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of the work on an analysis in one run, with the reason where it is not delivered."""

    item_id: int
    end: End
    reason: str = ""


_HELD = 20.0
"""Seconds for which a download keeps its place while other organizations wait for one."""
_LOOK = 1.0
"""Seconds between looks for what became due meanwhile."""


class Crew:
    """Works under the claims of one owner, and renews their leases until it is closed. Thread-safe.

    Args:
        patience: how long to wait for unfinished batches after the last progress of any analysis, seconds.
        seconds: time budget; after it nothing is begun, and downloads end.
    """

    def __init__(self, services: Services, owner: str, *, patience: float, seconds: float = math.inf) -> None:
        self._claims = services.claims
        self._patience = patience
        places = services.settings.vision_parallel_analyses
        self._places = Shares(places, share_of(places))
        self._deadline = time.monotonic() + seconds
        self._last_progress = time.monotonic()
        self._lock = threading.Lock()
        self._closed = False
        self._expected: set[int] | None = None
        self._nobody_expected = threading.Event()
        self._nobody_expected.set()
        self._ended: list[int] = []
        with ExitStack() as opened:
            opened.enter_context(services.claims.hold(owner))
            self.lists = opened.enter_context(Lists(services, owner, self._deadline))
            batches = opened.enter_context(BatchWorker(services))
            self._worker = opened.enter_context(AnalysisWorker(services, batches))
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and stop renewing leases. Threads that still work find that at their next write."""
        self._closed = True
        self._opened.close()

    def expect(self, ids: Iterable[int]) -> None:
        """Announce analyses that `work` will be called for."""
        with self._lock:
            self._expected = set(ids)
            if self._expected:
                self._nobody_expected.clear()

    def work(self, claim: Claim) -> Ended:
        """Work on one analysis until it is delivered, fails, or has waited for `patience`."""
        waiting = False

        def advance(claim: Claim) -> None:
            nonlocal waiting
            try:
                self._advance(claim)
            except StillWaiting:
                waiting = True
                raise
            finally:
                if not waiting:
                    self._last_progress = time.monotonic()

        outcome = work_through(self._claims, analyses.QUEUE, [claim], advance, threads=1, on_failure=_order_anew)
        item = claim.item_id
        if outcome.done:
            return Ended(item, End.DONE)
        if item in outcome.failed:
            return Ended(item, End.FAILED, outcome.failed[item])
        if item in outcome.retried and waiting:
            return Ended(item, End.WAITING, outcome.retried[item])
        if item in outcome.retried:
            with transaction(self._claims.engine) as rows:
                told = executions.with_next_try(rows, analyses.QUEUE.name, item, outcome.retried[item])
            return Ended(item, End.RETRY, told)
        return Ended(item, End.LOST, "another run took it over")

    def latecomers(self, take: Callable[[int, Collection[str]], Iterable[Claim]]) -> Iterator[Ended]:
        """Work on what becomes due while the expected ones, lists or earlier latecomers are at work; how each ended.

        Args:
            take: claims up to so many analyses, none of these organizations, which have enough at work.
        """
        running: dict[Future[Ended], str] = {}
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="vision-late") as pool:
            while not self._closed:
                last = self._nobody_expected.is_set() and not running and not self.lists.at_work
                if time.monotonic() < self._deadline:
                    self.lists.look()
                    for claim in take(AT_ONCE - len(running), _crowd(running.values())):
                        running[pool.submit(self.work, claim)] = claim.tenant
                if last and not running and not self.lists.at_work:
                    return
                if running:
                    for future in wait(running, _LOOK, FIRST_COMPLETED).done:
                        del running[future]
                        yield future.result()
                else:
                    self._nobody_expected.wait(_LOOK)
                    self.lists.wait(_LOOK)

    def ended(self, item_id: int) -> list[int]:
        """Note that the work on this one has ended. Returns all ended ones if no more are expected, else none.

        In a run that does failed steps again nobody says what to expect: then each one alone.
        """
        with self._lock:
            if self._expected is None:
                return [item_id]
            self._expected.discard(item_id)
            self._ended.append(item_id)
            if not self._expected:
                self._nobody_expected.set()
            return [] if self._expected else list(self._ended)

    def _advance(self, claim: Claim) -> None:
        while True:
            with self._places.place(claim.tenant):
                if self._closed:
                    raise LeaseLost("The run has ended.")
                if time.monotonic() >= self._deadline:
                    raise OutOfTime("The run's time was over before its turn came", retry_after=1.0)
                pause = self._worker.advance(claim, self._stopped(claim))
            if pause is None:
                return
            until = time.monotonic() + pause.seconds
            if until - self._last_progress > self._patience or until > self._deadline:
                why = f": {pause.why}" if pause.why else "."
                told = f"The analysis backend has not finished yet{why}"
                raise StillWaiting(told, retry_after=max(pause.seconds, 15.0))
            time.sleep(pause.seconds)

    def _stopped(self, claim: Claim) -> Callable[[], ImgpipeError | None]:
        """Why a download of an analysis that has just got its place is to end, or None."""
        lost, until = Watch(self._claims, claim), time.monotonic() + _HELD

        def why() -> ImgpipeError | None:
            now = time.monotonic()
            if self._closed:
                return LeaseLost("The run has ended.")
            if now >= self._deadline:
                return OutOfTime("Its documents come slowly, and the run's time is over", retry_after=15.0)
            if now >= until and self._places.crowded(claim.tenant):
                return OutOfTime("Its documents come slowly, and others waited", retry_after=15.0)
            return lost()

        return why


def _crowd(tenants: Iterable[str]) -> set[str]:
    """Those who have so many latecomers at work that the next of them would only wait."""
    return {tenant for tenant, number in Counter(tenants).items() if number >= AT_ONCE // 4}


def _order_anew(rows: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
    """When an analysis fails because its batch has no report, let a later requeue submit a new batch."""
    if state is State.FAILED and isinstance(error, NoReport):
        analyses.forget_batch(rows, claim.item_id)
