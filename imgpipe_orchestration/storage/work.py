"""Runs a batch of claims through one step, in parallel and within a time budget; each item fails alone.

All features use `work_through`, so crashes, slow partners and lost leases are handled in one place. `drain` works
through a whole queue with it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, LeaseLost, Retryable
from imgpipe_orchestration.storage.claims import Claim, Claims, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import bound, logger
from imgpipe_orchestration.telemetry.redaction import redact

log = logger(__name__)

OnFailure = Callable[[Connection, Claim, ImgpipeError, State], None]
"""Writes what the feature records about a failure, in the transaction that settles the claim."""

Further = Callable[[int, Collection[str]], Sequence[Claim]]
"""Returns up to so many further claims for a batch, none of these tenants, who have their share of it."""

LOOK_AGAIN = 2.0
"""Seconds after which a batch looks for further claims, even if no item has ended meanwhile."""


@dataclass
class Outcome:
    """The result of a batch, for the run's metadata."""

    done: list[Claim] = field(default_factory=list)
    retried: dict[int, str] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    left: list[Claim] = field(default_factory=list)
    """Not begun because the time budget ended. They stay claimed until the run gives them back at its end."""
    seconds: float = 0.0

    @property
    def empty(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.done or self.retried or self.failed or self.lost or self.left)

    def add(self, other: Outcome) -> None:
        """Add the result of another batch."""
        self.done += other.done
        self.retried |= other.retried
        self.failed |= other.failed
        self.lost += other.lost
        self.left += other.left
        self.seconds += other.seconds


def days_of(engine: Engine, done: Sequence[Claim], table: str, day: str = "created_at") -> Counter[str]:
    """How many of these items have rows of which day (UTC): by a column of their table, a date or a time."""
    query = text(f"select to_char({day}, 'YYYY-MM-DD') from {table} where id = any(:ids)")
    with transaction(engine) as connection:
        return Counter(connection.scalars(query, {"ids": [claim.item_id for claim in done]}))


class UnexpectedError(Retryable):
    """A bug in our code while working on an item: logged with its traceback, and tried again like other failures."""


@contextmanager
def working_as(claims: Claims, owner: str) -> Iterator[None]:
    """Keep the leases of `owner` alive while the block runs. What `owner` still holds at the end is given back."""
    try:
        with claims.hold(owner):
            yield
    finally:
        claims.release(owner)


def drain(
    claims: Claims,
    queue: Queue,
    owner: str,
    step: Callable[[Claim], None],
    *,
    threads: int,
    batch_size: int | None = None,
    partition: str = "",
    take: Callable[..., Sequence[Claim]] | None = None,
    seconds: float | None = None,
    share: int | None = None,
    interrupted: threading.Event | None = None,
) -> Outcome:
    """Work through what `owner` holds of a queue and what is due of it, until nothing is due.

    What becomes due meanwhile joins, but suspects stay by themselves. The caller keeps the leases: see `working_as`.

    Args:
        batch_size: items that are claimed at a time. Nothing joins then, and the run ends after a batch of which
            nothing was done: a backend is away. None: as many as can begin at once, so that tenants take turns.
        take: claims items as `Further` does, with `joining=True` when they join others; by default the due ones.
        seconds: the time budget, after which no further item is begun.
        share, interrupted: see `work_through`.
    """

    def take_due(free: int, full: Collection[str], *, joining: bool = False) -> Sequence[Claim]:
        return claims.claim(queue, owner, free, partition=partition, suspects=not joining, but=full)

    taking = take or take_due
    total, deadline = Outcome(), None if seconds is None else time.monotonic() + seconds
    size = batch_size or min(threads, share or threads)
    held = claims.owned(queue, owner)
    while batch := [*held, *taking(max(0, size - len(held)), ())]:
        held = []
        alone = batch_size is not None or any(claim.losses for claim in batch)
        outcome = work_through(
            claims,
            queue,
            batch,
            step,
            threads=threads,
            deadline=deadline,
            further=None if alone else partial(taking, joining=True),
            share=share,
            interrupted=interrupted,
        )
        total.add(outcome)
        if _past(deadline) or (batch_size and not outcome.done):
            break
    return total


def work_through(
    claims: Claims,
    queue: Queue,
    batch: Sequence[Claim],
    step: Callable[[Claim], None],
    *,
    threads: int,
    deadline: float | None = None,
    on_failure: OnFailure | None = None,
    recorded: bool = True,
    further: Further | None = None,
    share: int | None = None,
    interrupted: threading.Event | None = None,
) -> Outcome:
    """Run `step` on each claim in `threads` threads.

    `step` writes under `claims.fenced(claim)`. It raises Permanent or Retryable; anything else counts as a bug in our
    code and is retried. An item whose lease is lost is left to its new owner.

    Args:
        threads: how many items are worked on at once.
        deadline: time by `time.monotonic()` after which no further item is begun.
        on_failure: see `OnFailure`.
        recorded: the times under the queue's name (see `note_times`); False: the step does that itself, in several
            parts.
        further: see `Further`. Called whenever threads are free, so that one slow item does not delay others.
        share: how many threads one tenant has at most, so that its slow items leave some to others.
        interrupted: is set when the run is stopped, and the steps in progress are waited for: those of several parts
            have to begin no further one.
    """
    outcome = Outcome()
    started = time.monotonic()
    spent: dict[int, float] = {}

    def timed(claim: Claim) -> None:
        begun = time.monotonic()
        try:
            with working_on(claim, queue):
                if recorded:
                    with tracing.span(queue.name, item=claim.item_id, attempt=claim.attempt):
                        step(claim)
                else:
                    step(claim)
        finally:
            spent[claim.item_id] = time.monotonic() - begun

    carried = tracing.carried(timed)
    waiting = list(batch)
    running: dict[Future[None], Claim] = {}
    with (
        ThreadPoolExecutor(max_workers=threads, thread_name_prefix=f"{queue.name}-work") as pool,
        set_if_interrupted(interrupted or threading.Event()),
    ):
        while True:
            while len(running) < threads and not _past(deadline):
                full = _full(running.values(), share)
                claim = next((claim for claim in waiting if claim.tenant not in full), None)
                if claim is None:
                    break
                waiting.remove(claim)
                running[pool.submit(carried, claim)] = claim
            if further and len(running) < threads and not _past(deadline):
                free = threads - len(running)
                try:
                    joining = further(free, _full([*waiting, *running.values()], share))
                except BackendUnavailable as error:
                    log.warning("nothing more taken on", extra={"error": error.public})
                    joining = []
                if joining:
                    waiting += joining
                    continue
            if not running:
                break
            for future in wait(running, LOOK_AGAIN if further else None, FIRST_COMPLETED).done:
                claim = running.pop(future)
                with working_on(claim, queue):
                    _account(claims, queue, claim, future.exception(), outcome, on_failure)
    outcome.left = waiting
    outcome.seconds = time.monotonic() - started
    if recorded:
        note_times(claims, queue.name, queue.name, outcome, spent)
    return outcome


def _full(claims: Iterable[Claim], share: int | None) -> set[str]:
    """The tenants who have their share, or more, of these claims."""
    if share is None:
        return set()
    return {tenant for tenant, number in Counter(claim.tenant for claim in claims).items() if number >= share}


class Shares:
    """A semaphore with a limit for each tenant, so that one whose work takes long leaves a place to others.

    Args:
        places: of all tenants together; one tenant has all but one of them.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._each = max(1, places - 1)
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def place(self, tenant: str) -> Iterator[int]:
        """Wait for a place and hold it; gives how many places are held, this one included."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken[tenant] < self._each and self._taken.total() < self._places)
            self._taken[tenant] += 1
            held = self._taken.total()
        try:
            yield held
        finally:
            with self._changed:
                self._taken[tenant] -= 1
                self._changed.notify_all()


@contextmanager
def set_if_interrupted(event: threading.Event) -> Iterator[None]:
    """Set `event` when the block raises. To be left before a pool of threads, which waits for all of them."""
    try:
        yield
    except BaseException:
        event.set()
        raise


@contextmanager
def working_on(claim: Claim, queue: Queue) -> Iterator[None]:
    """Log lines within the block name the item, and calls within it belong to the item's trace."""
    with (
        bound(run=claim.owner, queue=queue.name, item=claim.item_id, tenant=claim.tenant),
        tracing.resumed(tracing.parse(claim.trace)),
    ):
        yield


class Watch:
    """Tells that a claim is lost, to work that takes long before its next write. May be asked often: it looks at the
    database at most every two seconds."""

    def __init__(self, claims: Claims, claim: Claim) -> None:
        self._claims = claims
        self._claim = claim
        self._looked = time.monotonic()
        self._lost: LeaseLost | None = None

    def __call__(self) -> LeaseLost | None:
        if self._lost is None and time.monotonic() - self._looked >= LOOK_AGAIN:
            self._looked = time.monotonic()
            try:
                with self._claims.fenced(self._claim):
                    pass
            except LeaseLost as lost:
                self._lost = lost
            except BackendUnavailable:
                log.info("not known whether the claim holds")  # the next write finds out
        return self._lost


def note_times(claims: Claims, queue: str, stage: str, outcome: Outcome, spent: Mapping[int, float]) -> None:
    """Add the batch to the stage's sums, once. If the database is away they are lost: they are only for graphs."""
    ends: dict[str, Collection[int]] = {  # in this order, so that two batches cannot deadlock
        "done": [claim.item_id for claim in outcome.done],
        "failed": outcome.failed,
        "lost": outcome.lost,
        "retried": outcome.retried,
    }
    rows = [
        {"queue": queue, "stage": stage, "outcome": end, "items": len(ids), "seconds": sum(spent[id_] for id_ in ids)}
        for end, ids in ends.items()
        if ids
    ]
    if not rows:
        return
    try:
        with transaction(claims.engine) as connection:
            connection.execute(_ADD_TIMES, rows)
    except BackendUnavailable as error:
        log.warning("stage times not recorded", extra={"queue": queue, "stage": stage, "error": error.public})


_ADD_TIMES = text("""
    insert into stage_times (queue, stage, outcome, items, seconds) values (:queue, :stage, :outcome, :items, :seconds)
    on conflict (queue, stage, outcome) do update
    set items = stage_times.items + excluded.items, seconds = stage_times.seconds + excluded.seconds
""")


def _past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline


def _account(
    claims: Claims,
    queue: Queue,
    claim: Claim,
    error: BaseException | None,
    outcome: Outcome,
    on_failure: OnFailure | None,
) -> None:
    if error is None:
        outcome.done.append(claim)
        return
    if isinstance(error, LeaseLost):
        log.info("lease lost")
        outcome.lost.append(claim.item_id)
        return
    if not isinstance(error, ImgpipeError):
        log.error("unexpected error", exc_info=error)
        error = UnexpectedError(redact(f"{type(error).__name__}: {error}"))
    try:
        with claims.fenced(claim) as connection:
            state = claims.failed(connection, queue, claim, error)
            if on_failure is not None:
                on_failure(connection, claim, error, state)
    except LeaseLost:
        outcome.lost.append(claim.item_id)
        return
    except Exception as fault:
        # The database is away, or the feature cannot record the failure. Other items go on; this one stays claimed
        # until the run gives it back or its lease ends, and is then tried again.
        known = {"error": fault.public} if isinstance(fault, ImgpipeError) else {}
        log.error("failure not recorded", exc_info=None if known else fault, extra=known)
        outcome.retried[claim.item_id] = error.public
        return
    detail = {"detail": error.detail} if error.detail else {}
    log.warning("item failed", extra={"state": state.value, "error": error.public, **detail})
    (outcome.failed if state is State.FAILED else outcome.retried)[claim.item_id] = error.public
