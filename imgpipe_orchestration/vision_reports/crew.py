"""A crew of threads that takes many analyses forward at once and lets none of them wait in a thread.

An analysis whose batch is not finished stands in a schedule, not in a thread: a crew of four keeps hundreds of batches
in the air, and sleeps while there is nothing to do. When the patience is used up, what still waits is put back with the
moment of its next look; a later run goes on from there.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.storage.claims import Claim, Claims, Queue
from imgpipe_orchestration.storage.work import Outcome, work_through
from imgpipe_orchestration.vision_reports.model import StillWaiting

log = logger(__name__)

Turn = Callable[[Claim], float | None]
"""One turn of an item: the seconds until its next one, or None when it is finished."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How an item's time with this crew ended."""

    item_id: int
    state: str
    """`done`; `waiting` (the backend has not finished, a later run looks again); `retry`; `failed`; `lost`."""
    error: str = ""

    @property
    def went_wrong(self) -> bool:
        return self.state in {"retry", "failed"}


class Crew:
    """`hands` threads over one queue, for one owner.

    Args:
        patience: seconds after the last progress of any item during which unfinished batches are waited for.
    """

    def __init__(self, claims: Claims, queue: Queue, turn: Turn, owner: str, *, hands: int, patience: float) -> None:
        self._claims = claims
        self._queue = queue
        self._turn = turn
        self._owner = owner
        self._hands = hands
        self._patience = patience
        self._endings: dict[int, Future[Ending]] = {}
        self._due: list[tuple[float, int, Claim]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._active = 0
        self._last_progress = time.monotonic()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._leases = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def start(self, claims: Sequence[Claim]) -> None:
        """Take these on; returns at once. Their leases are kept until `close`."""
        if not self._threads:
            self._leases.enter_context(self._claims.hold(self._owner))
        with self._changed:
            for claim in claims:
                self._endings[claim.item_id] = Future()
                heapq.heappush(self._due, (time.monotonic(), next(self._order), claim))
            self._changed.notify_all()
        for number in range(len(self._threads), min(self._hands, len(self._endings))):
            # Daemons: a run that is cancelled does not wait for a download; the fences stop what comes too late.
            thread = threading.Thread(target=self._work, name=f"vision-hand-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def has(self, item_id: int) -> bool:
        return item_id in self._endings

    def ending(self, item_id: int) -> Ending:
        """Wait until this item's time with the crew is over."""
        return self._endings[item_id].result()

    def close(self, seconds: float = 10.0) -> None:
        """Stop taking turns. A turn under way has `seconds` to end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        for item_id, future in self._endings.items():
            if not future.done():
                future.set_result(Ending(item_id, "lost", "the run ended"))
        self._leases.close()

    # --- the hands -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (claim := self._next()) is not None:
            ending = None
            try:
                ending = self._take_turn(claim)
            finally:
                with self._changed:
                    self._active -= 1
                    if ending is not None and ending.state != "waiting":
                        self._last_progress = time.monotonic()
                    self._changed.notify_all()
            if ending is not None and not self._endings[claim.item_id].done():
                self._endings[claim.item_id].set_result(ending)

    def _next(self) -> Claim | None:
        """The next claim whose turn it is; waits for it. None when the crew is stopped."""
        with self._changed:
            while not self._stopped:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    self._active += 1
                    return heapq.heappop(self._due)[2]
                self._changed.wait(wait)
            return None

    def _take_turn(self, claim: Claim) -> Ending | None:
        """One turn; None when the item goes back into the schedule."""
        again: list[float] = []
        put_back = False

        def step(claim: Claim) -> None:
            nonlocal put_back
            seconds = self._turn(claim)
            if seconds is None:
                return
            if self._out_of_patience(seconds):
                put_back = True
                raise StillWaiting("The analysis backend has not finished yet.", retry_after=max(seconds, 15.0))
            again.append(seconds)

        outcome = work_through(self._claims, self._queue, [claim], step, threads=1)
        if again:
            with self._changed:
                heapq.heappush(self._due, (time.monotonic() + again[0], next(self._order), claim))
            return None
        return _ending(claim, outcome, "waiting" if put_back else "retry")

    def _out_of_patience(self, seconds: float) -> bool:
        """Whether nothing else is moving and has not been for so long that the run should not be kept for this."""
        with self._changed:
            idle = self._active <= 1 and not (self._due and self._due[0][0] <= time.monotonic())
            return idle and time.monotonic() + seconds - self._last_progress > self._patience


def _ending(claim: Claim, outcome: Outcome, when_put_back: str) -> Ending:
    item = claim.item_id
    if outcome.done:
        return Ending(item, "done")
    if item in outcome.failed:
        return Ending(item, "failed", outcome.failed[item])
    if item in outcome.retried:
        return Ending(item, when_put_back, outcome.retried[item])
    return Ending(item, "lost", "another run took it over")
