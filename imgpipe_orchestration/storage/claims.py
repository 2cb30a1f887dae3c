"""One mechanism for every queue: claim, lease, heartbeat, fence, back off, give up, requeue.

`work_items` holds one row per item and queue. It says who works on the item and when it is due next; what the item *is*
stands in its feature's own tables, which the feature writes in the same transaction.

The life of an item:

    waiting ──claim──► claimed ──finish──► done
       ▲                 │ │
       │◄──retry─────────┘ └──fail──► failed ──requeue──► waiting
       │◄──release (run cancelled, backend away: no attempt spent)
       │◄──the lease ran out (worker killed): the next claim makes it ready again
                                          failed ──ignore──► ignored

`due_at` is schedule and lease in one: the moment something happens to the item by itself. For a waiting item the end of
its pause, for a claimed one the end of its lease, null for one that is ready. What has passed its moment is made ready
by the next claim, so a crashed worker needs no clean-up.

Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights: each item gets a turn one past its
tenant's last, but not before the turn now being served. A tenant with a million items waiting and one with a single
item take turns. Ready items stand in lanes, each fair in itself: new ones, ones that failed before, and suspects, whose
worker died. Suspects never share a batch with others, and the more workers they have lost the fewer of them go
together, so that the one which kills its worker is soon alone and takes nobody with it.

Times are the database's clock, never the worker's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import ImgpipeError, LeaseLost, Retryable, SpendingPaused
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.storage import backlog, retention
from imgpipe_orchestration.storage import claims_sql as sql
from imgpipe_orchestration.storage.jsonb import storable_text
from imgpipe_orchestration.storage.leases import beating
from imgpipe_orchestration.storage.pauses import PAUSE_SECONDS, asked_for, backoff
from imgpipe_orchestration.storage.queues import Claim, Item, Queue, State
from imgpipe_orchestration.storage.rows import transaction

__all__ = ["Claim", "Claims", "Item", "Queue", "State", "backoff"]

log = logger(__name__)

MAX_LOSSES = 5
"""Workers that may die holding one item before the item is held to be the reason."""
SHRINK = 4
"""A batch of suspects is this many times smaller for each further worker they lose."""
AHEAD = 10
"""Items made ready by one claim, as a multiple of what it takes: so that a tenant's one retry does not wait until
another's million, due a moment earlier, have been worked off."""
BATCH = 1000
"""Dead letters that one transaction requeues."""
ERROR_LENGTH = 2000
"""Characters of an error that are kept."""

FRESH, AGAIN = 0, 1
"""Lanes (`work_items.lane`): never failed; failed before. Above that: suspects, one lane per worker lost."""

WORKER_DIED = "worker-died"
"""Error code of an item that was given up because its workers died; no feature was there to write anything about it."""
LOST = {"error": "The worker stopped without a word; its lease ran out.", "code": "lease-lost"}


class Claims:
    """The queues of one database."""

    def __init__(self, engine: Engine, *, lease_seconds: float = 60.0, spending_pause: float = 300.0) -> None:
        self.engine = engine
        self.lease_seconds = lease_seconds
        self.spending_pause = spending_pause
        """Seconds that what waits for a quota or a key waits, where nobody says for how long."""

    # --- putting in ----------------------------------------------------------------------------------------------

    def enqueue(
        self,
        connection: Connection,
        queue: Queue,
        items: Sequence[Item],
        *,
        delay: float = 0.0,
        again: bool = False,
    ) -> int:
        """Add items in the caller's transaction; an item already known to the queue is left as it is.

        Enqueue last in a transaction: until it ends, others who enqueue for the same tenant wait. Whoever works
        on the items goes on with their traces.

        Args:
            delay: seconds before the items are due.
            again: items that are done, failed or ignored start anew; those that wait or are claimed stay as they are.

        Returns:
            how many were new.
        """
        trace = str(tracing.current() or tracing.begin())
        values: dict[str, Any] = {
            "queue": queue.name,
            "ids": [item.id for item in items],
            "tenants": [item.tenant for item in items],
            "partitions": [item.partition for item in items],
            "traces": [item.trace or trace for item in items],
        }
        restarted = connection.execute(sql.RESTART, {**values, "delay": delay}).rowcount if again else 0
        if delay > 0:
            return restarted + connection.execute(sql.ENQUEUE_LATER, {**values, "delay": delay}).rowcount
        return restarted + connection.execute(sql.ENQUEUE, values).rowcount

    # --- looking -------------------------------------------------------------------------------------------------

    def due_partitions(self, queue: Queue, *, limit: int = 10) -> list[str]:
        """Partitions with something due, in order. Costs a few index probes per partition, whatever the backlog."""
        with transaction(self.engine) as connection:
            connection.execute(sql.INDEXES_ONLY)
            rows = connection.execute(sql.DUE_PARTITIONS, {"queue": queue.name, "limit": limit})
            return [row.partition for row in rows]

    def owned(self, queue: Queue, owner: str) -> list[Claim]:
        """The items `owner` holds, in the order of their turns: how one step of a run finds what the last one left."""
        with transaction(self.engine) as connection:
            return [Claim(*row) for row in connection.execute(sql.OWNED, {"queue": queue.name, "owner": owner})]

    def counts(self) -> dict[str, backlog.QueueCounts]:
        """Items per state, ages and averages of every queue that holds anything; no dearer for a long backlog."""
        with transaction(self.engine) as connection:
            return backlog.counts(connection)

    def failures(
        self, queue: Queue | None = None, *, limit: int = 100, before: backlog.DeadLetter | None = None
    ) -> list[backlog.DeadLetter]:
        """Dead letters of one queue or of all, the latest first; `before` is the last one of the page before."""
        name = queue.name if queue else None
        with transaction(self.engine) as connection:
            return backlog.failures(connection, name, limit=limit, before=before)

    def held_up(self, *, limit: int = 100) -> list[backlog.HeldUp]:
        """What keeps waiting items from being done, most items first."""
        with transaction(self.engine) as connection:
            return backlog.held_up(connection, limit=limit)

    def history(self, queue: Queue, item_id: int) -> list[backlog.Attempt]:
        """How an item's attempts ended, the first one first; as far back as retention keeps them."""
        with transaction(self.engine) as connection:
            return backlog.history(connection, queue.name, item_id)

    def state(self, queue: Queue, item_id: int) -> State | None:
        """The state of one item; None when it is not known."""
        with transaction(self.engine) as connection:
            found = connection.scalar(sql.STATE, {"queue": queue.name, "item_id": item_id})
            return State(found) if found else None

    def trace(self, queue: Queue, item_id: int) -> str:
        """`traceparent` of what put the item in; empty when the item is not known or older than traces."""
        with transaction(self.engine) as connection:
            return connection.scalar(sql.TRACE, {"queue": queue.name, "item_id": item_id}) or ""

    def purge(self, days: float) -> retention.Purged:
        """Remove what has been done or ignored for `days`, with its attempts, in short transactions."""
        return retention.purge_work(self.engine, days)

    # --- taking --------------------------------------------------------------------------------------------------

    def claim(
        self,
        queue: Queue,
        owner: str,
        limit: int,
        *,
        partition: str = "",
        retries: int | None = None,
        suspects: bool = True,
    ) -> list[Claim]:
        """Take up to `limit` due items of `partition` for `owner`, in turn, and start their leases.

        While there are suspects (see above) a batch consists of them alone.

        Args:
            suspects: False leaves them to others: what is taken joins a batch.
            retries: most items among them that failed before; keeps a wave of failures from filling every batch.
                None: half of the batch, or more where new items do not fill the rest.
        """
        if limit <= 0:
            return []
        key = {"queue": queue.name, "partition": partition}
        taking = {**key, "owner": owner, "lease": self.lease_seconds}
        with transaction(self.engine) as connection:
            connection.execute(sql.INDEXES_ONLY)
            connection.execute(sql.MAKE_READY, {**key, **LOST, "limit": AHEAD * limit})
            rows = self._suspects(connection, queue, taking, limit) if suspects else []
            if not rows:
                half = (limit + 1) // 2 if retries is None else min(retries, limit)
                rows = _take(connection, taking, AGAIN, half)
                rows += _take(connection, taking, FRESH, limit - len(rows))
                if retries is None and len(rows) < limit:
                    rows += _take(connection, taking, AGAIN, limit - len(rows))
        return [_claim(queue, owner, row, partition) for row in rows]

    def claim_these(self, queue: Queue, owner: str, ids: Sequence[int]) -> list[Claim]:
        """Take named items for `owner`, those of them that wait, whatever their turn or pause: a person asked."""
        values = {"queue": queue.name, "owner": owner, "lease": self.lease_seconds, "ids": list(ids)}
        with transaction(self.engine) as connection:
            taken = connection.execute(sql.TAKE_THESE, values)
            return [_claim(queue, owner, row, row.partition) for row in taken]

    def _suspects(self, connection: Connection, queue: Queue, taking: dict[str, Any], limit: int) -> list[Row[Any]]:
        """A batch of items whose workers died; those that lost too many are given up on the way."""
        while rows := list(connection.execute(sql.TAKE_SUSPECTS, {**taking, "limit": limit, "shrink": SHRINK})):
            dead = [row for row in rows if row.losses > MAX_LOSSES]
            if not dead:
                break
            for row in dead:
                self._give_up(connection, queue, row, taking)
        return sorted(rows, key=lambda row: row.turn)

    def _give_up(self, connection: Connection, queue: Queue, row: Row[Any], taking: dict[str, Any]) -> None:
        claim = Claim(queue.name, row.item_id, taking["owner"], row.attempt, row.failures, row.losses, row.tenant, "")
        reason = f"The worker died {row.losses} times while it held this item."
        try:
            with connection.begin_nested():
                self._settle(connection, queue, claim, State.FAILED, reason, WORKER_DIED, 0)
        except Exception as error:
            if connection.invalidated:
                raise
            # Its feature cannot write the failure down. That must not close the queue to everybody else: the item
            # stays claimed and comes back when the lease ends.
            log.error("cannot give up", extra={"queue": queue.name, "item": row.item_id}, exc_info=error)

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Keep the leases of `owner` alive while the block runs, from a thread and a connection of its own.

        Raises:
            BackendUnavailable: the database is away at the start. Later absences are waited out: if a lease ends
                meanwhile, the fences stop every write.
        """
        with beating(self.engine, owner, self.lease_seconds):
            yield

    # --- giving back ---------------------------------------------------------------------------------------------

    @contextmanager
    def fenced(self, claim: Claim) -> Iterator[Connection]:
        """A transaction that commits only while `claim` holds; the feature's writes belong inside.

        Raises:
            LeaseLost: another worker has taken the item over; nothing was written.
        """
        with transaction(self.engine) as connection:
            self.check(connection, claim)
            yield connection

    def check(self, connection: Connection, claim: Claim) -> None:
        """Lock the item's row for this transaction, or raise LeaseLost."""
        self._failures(connection, claim)

    def _failures(self, connection: Connection, claim: Claim) -> int:
        failures = connection.scalar(sql.CHECK, _key(claim))
        if failures is None:
            raise _lost(claim)
        return int(failures)

    def progress(self, connection: Connection, claim: Claim) -> None:
        """A step of the item succeeded: the next step starts with all its attempts. Inside `fenced`."""
        connection.execute(sql.PROGRESS, {**_key(claim), "lease": self.lease_seconds})

    def finish(self, connection: Connection, queue: Queue, claim: Claim) -> None:
        """The item is done. Inside `fenced`, with the writes that make it so; or first in a transaction of its own, for
        it is a fence itself.

        Raises:
            LeaseLost: another worker has taken the item over.
        """
        self._settle(connection, queue, claim, State.DONE, None, None, 0)

    def failed(self, connection: Connection, queue: Queue, claim: Claim, error: ImgpipeError) -> State:
        """The item failed: back to waiting with a pause, or given up. Inside `fenced`. Returns the new state.

        A Permanent error gives up at once; a Retryable one when the attempts are spent; one that is not the item's
        fault (a backend or a budget) never.
        """
        # From the row and not from the claim: a step that went well since has wiped the slate.
        failures = self._failures(connection, claim)
        if not isinstance(error, Retryable):
            state, pause, spent = State.FAILED, 0.0, 1
        elif not error.spends_attempt:
            usual = self.spending_pause if isinstance(error, SpendingPaused) else PAUSE_SECONDS
            state, pause, spent = State.WAITING, asked_for(error.retry_after) or usual, 0
        elif failures + 1 >= queue.max_attempts:
            state, pause, spent = State.FAILED, 0.0, 1
        else:
            state, pause, spent = State.WAITING, max(backoff(failures), asked_for(error.retry_after)), 1
        self._settle(connection, queue, claim, state, error.public, error.code, spent, pause)
        return state

    def _settle(
        self,
        connection: Connection,
        queue: Queue,
        claim: Claim,
        state: State,
        error: str | None,
        code: str | None,
        spent: int,
        pause: float = 0.0,
    ) -> None:
        error = None if error is None else _told(error)
        outcome = "retry" if state is State.WAITING else state.value
        told = {"state": state.value, "outcome": outcome, "error": error, "code": code, "spent": spent, "pause": pause}
        if connection.execute(sql.SETTLE, {**_key(claim), **told}).rowcount == 0:
            raise _lost(claim)
        queue.mirror(connection, [claim.item_id], state, error)

    def release(self, owner: str, *, died: bool = False) -> int:
        """Give back all that `owner` holds, at once and without spending an attempt. Returns how many.

        Args:
            died: the worker's process ended without a word. That is held against the items, as the end of a lease is:
                one of them may be what killed it.
        """
        with transaction(self.engine) as connection:
            return connection.scalar(sql.RELEASE, {"owner": owner, "lost": died, **LOST}) or 0

    def requeue(self, queue: Queue, ids: Sequence[int] | None = None) -> list[int]:
        """Failed or ignored items wait again with fresh attempts; None means every failed one. Returns the ids."""
        if ids is not None:
            return self._requeue(queue, ids, (State.FAILED, State.IGNORED))
        requeued: list[int] = []
        while letters := self.failures(queue, limit=BATCH):
            requeued += self._requeue(queue, [letter.item_id for letter in letters], (State.FAILED,))
        return requeued

    def ignore(self, queue: Queue, ids: Sequence[int]) -> list[int]:
        """Failed items no longer count as failures; all that is said of them stays. Returns their ids."""
        with transaction(self.engine) as connection:
            return list(connection.scalars(sql.IGNORE, {"queue": queue.name, "ids": list(ids)}))

    def withdraw(self, connection: Connection, queue: Queue, ids: Sequence[int], reason: str) -> list[int]:
        """Take items out of the queue for good, in the caller's transaction, even from a worker that holds them: its
        next write finds the lease lost. Returns the ids that were waiting or claimed."""
        values = {"queue": queue.name, "ids": list(ids), "reason": _told(reason)}
        return list(connection.scalars(sql.WITHDRAW, values))

    def _requeue(self, queue: Queue, ids: Sequence[int], states: Sequence[State]) -> list[int]:
        values = {"queue": queue.name, "states": [s.value for s in states], "ids": list(ids)}
        with transaction(self.engine) as connection:
            changed = list(connection.scalars(sql.REQUEUE, values))
            if changed:
                queue.mirror(connection, changed, State.WAITING, None)
        return changed


def _claim(queue: Queue, owner: str, row: Row[Any], partition: str) -> Claim:
    """A row that was just taken."""
    return Claim(
        queue.name, row.item_id, owner, row.attempt, row.failures, row.losses, row.tenant, partition, row.trace
    )


def _take(connection: Connection, taking: dict[str, Any], lane: int, limit: int) -> list[Row[Any]]:
    """Up to `limit` items of a lane, in turn."""
    if limit <= 0:
        return []
    rows = sorted(connection.execute(sql.TAKE, {**taking, "lane": lane, "limit": limit}), key=lambda row: row.turn)
    if rows:
        key = {"queue": taking["queue"], "partition": taking["partition"]}
        connection.execute(sql.SERVE, {**key, "lane": lane, "turn": rows[-1].turn})
    return rows


def _told(error: str) -> str:
    """An error as PostgreSQL takes it, for it may name a file as a stranger called it, and no longer than useful."""
    return storable_text(error)[:ERROR_LENGTH]


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"{claim.queue} {claim.item_id}: taken over by another worker")


def _key(claim: Claim) -> dict[str, Any]:
    return {"queue": claim.queue, "item_id": claim.item_id, "owner": claim.owner, "attempt": claim.attempt}
