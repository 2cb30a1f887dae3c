"""One mechanism for every queue: claim, lease, heartbeat, fence, back off, give up, requeue.

`work_items` has one row per item and queue. It says who is working on the item and when it is due. What the item *is*
is in its feature's tables, which the feature writes in the same transaction.

The life of an item:

    waiting ──claim──► claimed ──finish──► done
       ▲                 │ │
       │◄──retry─────────┘ └──fail──► failed ──requeue──► waiting
       │◄──release (run cancelled, backend away: no attempt spent)
       │◄──the lease ran out (worker killed): the next claim makes it ready again
                                          failed ──ignore──► ignored ──unignore──► failed

`due_at` is both schedule and lease: the end of a waiting item's pause or of a claimed item's lease, and null for an
item that is ready. The next claim makes items ready whose `due_at` has passed, so a crash needs no clean-up.

Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights: each item's turn is one past its
tenant's last, but not below the turn being served. So a tenant with a million waiting items and one with a single item
take turns. Ready items wait in lanes, each fair in itself: new items, items that failed before, and suspects, whose
worker died. Suspects are claimed without other items, in smaller batches the more workers they have lost, so an item
that kills its worker is soon alone.

All times are the database's.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine

from imgpipe_orchestration.errors import (
    ImgpipeError,
    LeaseLost,
    PartnerAway,
    Planned,
    RateLimited,
    Retryable,
    SettingsError,
    SpendingPaused,
)
from imgpipe_orchestration.storage import claims_sql as sql
from imgpipe_orchestration.storage.backlog import Backlog
from imgpipe_orchestration.storage.jsonb import storable_text
from imgpipe_orchestration.storage.leases import beating
from imgpipe_orchestration.storage.queues import PAUSE_SECONDS, Claim, Item, Known, Queue, State, asked_for, backoff
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger

__all__ = ["Claim", "Claims", "Item", "Queue", "State"]

log = logger(__name__)

MAX_LOSSES = 5
"""Workers that may die holding an item before the item is given up as the cause."""
SHRINK = 4
"""A batch of suspects is this many times smaller for each further worker they lose."""
READY_FACTOR = 10
"""How many times as many items a claim makes ready as it takes. Otherwise the only retry of one tenant would wait for
a million of another's that were due a moment earlier."""
BATCH = 1000
"""Items that one transaction requeues, hastens or makes ready."""
ERROR_LENGTH = 2000
"""Characters of an error that are kept."""

FRESH, AGAIN = 0, 1
"""Lanes (`work_items.lane`): never failed; failed before. Above that: suspects, one lane per worker lost."""

WORKER_DIED = "worker-died"
"""Error code of an item that was given up because its workers died, which could not record that themselves."""
LOST = {"error": "The worker stopped without reporting; its lease expired.", "code": "lease-lost"}


class Claims(Backlog):
    """The queues of one database."""

    def __init__(self, engine: Engine, *, lease_seconds: float = 60.0, spending_pause: float = 300.0) -> None:
        super().__init__(engine)
        self.lease_seconds = lease_seconds
        self.spending_pause = spending_pause
        """Pause in seconds of items that wait for a quota or a key, where the provider gives none."""

    # --- putting in ----------------------------------------------------------------------------------------------

    @staticmethod
    def enqueue(
        connection: Connection,
        queue: Queue,
        items: Sequence[Item],
        *,
        delay: float = 0.0,
        again: bool = False,
    ) -> int:
        """Add items in the caller's transaction; an item already known to the queue is left as it is.

        Do this last in a transaction: until it ends, other transactions that enqueue for the same tenant wait. An item
        without a trace gets the current one, which the worker continues.

        Args:
            delay: seconds before the items are due.
            again: also restart items that are done, failed or ignored.

        Returns:
            how many items were new or restarted.
        """
        trace = tracing.current() or tracing.begin()
        values: dict[str, Any] = {
            "queue": queue.name,
            "ids": [item.id for item in items],
            "tenants": [item.tenant for item in items],
            "partitions": [item.partition for item in items],
            "traces": [item.trace or trace for item in items],
            "delay": delay,
        }
        restarted = connection.execute(sql.RESTART, values).rowcount if again else 0
        return restarted + connection.execute(sql.ENQUEUE_LATER if delay > 0 else sql.ENQUEUE, values).rowcount

    # --- looking -------------------------------------------------------------------------------------------------

    def due_partitions(self, queue: Queue, *, limit: int | None = None) -> list[str]:
        """Partitions with something due, in order. Takes a few index probes per partition, whatever the backlog."""
        with transaction(self.engine) as connection:
            connection.execute(sql.INDEXES_ONLY)
            rows = connection.execute(sql.DUE_PARTITIONS, {"queue": queue.name, "limit": limit})
            return [row.partition for row in rows]

    def owned(self, queue: Queue, owner: str) -> list[Claim]:
        """The items that `owner` holds, by turn. A step of a run finds what the previous step left this way."""
        with transaction(self.engine) as connection:
            return [Claim(*row) for row in connection.execute(sql.OWNED, {"queue": queue.name, "owner": owner})]

    def find(self, queue: Queue, item_id: int) -> Known:
        """What the queue knows of an item."""
        with transaction(self.engine) as connection:
            row = connection.execute(sql.FIND, {"queue": queue.name, "item_id": item_id}).one_or_none()
            return Known(State(row.state), row.error_code, row.trace or "") if row else Known()

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
        but: Collection[str] = (),
    ) -> list[Claim]:
        """Take up to `limit` due items of `partition` for `owner`, in turn, and start their leases.

        While there are suspects (see above) they are taken alone.

        Args:
            suspects: False takes no suspects, because the items will join a batch of others.
            retries: the most items that failed before, so that a wave of failures cannot fill every batch. None: half
                of the limit, or more where there are not enough new items.
            but: tenants of whom nothing is taken, except as suspects.
        """
        if limit <= 0:
            return []
        key = {"queue": queue.name, "partition": partition}
        taking = {**key, "owner": owner, "lease": self.lease_seconds, "but": list(but)}
        with transaction(self.engine) as connection:
            _make_ready(connection, key, READY_FACTOR * limit)
            taken = self._suspects(connection, queue, taking, limit) if suspects else []
            if not taken:
                half = (limit + 1) // 2 if retries is None else min(retries, limit)
                taken = _take(connection, taking, AGAIN, half)
                taken += _take(connection, taking, FRESH, limit - len(taken))
                if retries is None and len(taken) < limit:
                    taken += _take(connection, taking, AGAIN, limit - len(taken))
        return taken

    def make_ready(self, queue: Queue) -> None:
        """Make items ready whose pause or lease is over, which `claim` does by itself and `claim_these` does not."""
        with transaction(self.engine) as connection:
            _make_ready(connection, {"queue": queue.name, "partition": ""}, BATCH)

    def claim_these(self, queue: Queue, owner: str, ids: Sequence[int]) -> list[Claim]:
        """Take the waiting ones of these items for `owner`, whatever their turn, also those whose pause is not over."""
        values = {"queue": queue.name, "owner": owner, "lease": self.lease_seconds, "ids": list(ids)}
        with transaction(self.engine) as connection:
            return [Claim(*row) for row in connection.execute(sql.TAKE_THESE, values)]

    def take_over(self, owner: str, new: str) -> int:
        """Make `new` the owner of all that `owner` holds, whose writes are refused from then on; returns how many."""
        values = {"owner": owner, "new": new, "lease": self.lease_seconds}
        with transaction(self.engine) as connection:
            return connection.execute(sql.TAKE_OVER, values).rowcount

    def _suspects(self, connection: Connection, queue: Queue, taking: dict[str, Any], limit: int) -> list[Claim]:
        """A batch of items whose workers died; items that lost too many workers are given up and left out."""
        batch = {**taking, "limit": limit, "shrink": SHRINK, "most": MAX_LOSSES}
        while taken := _in_turn(connection.execute(sql.TAKE_SUSPECTS, batch)):
            dead = [claim for claim in taken if claim.losses > MAX_LOSSES]
            if not dead:
                break
            for claim in dead:
                self._give_up(connection, queue, claim)
        return taken

    def _give_up(self, connection: Connection, queue: Queue, claim: Claim) -> None:
        reason = f"The worker died {claim.losses} times while it held this item."
        try:
            with connection.begin_nested():
                self._settle(connection, queue, claim, State.FAILED, reason, WORKER_DIED, 0)
        except Exception as error:
            if connection.invalidated:
                raise
            # Its feature could not record the failure. That must not block the queue: the item stays claimed and comes
            # back when its lease ends.
            log.error("cannot give up", extra={"queue": queue.name, "item": claim.item_id}, exc_info=error)

    def hold(self, owner: str) -> AbstractContextManager[None]:
        """Keep the leases of `owner` alive while the block runs: see `leases.beating`. If a lease ends while the
        database is away, the fences stop every write."""
        return beating(self.engine, owner, self.lease_seconds)

    # --- giving back ---------------------------------------------------------------------------------------------

    @contextmanager
    def fenced(self, claim: Claim) -> Iterator[Connection]:
        """A transaction that commits only while `claim` holds; the feature's writes belong inside.

        Raises:
            LeaseLost: another worker has taken the item over; nothing was written.
        """
        with transaction(self.engine) as connection:
            _lock(connection, claim)
            yield connection

    def progress(self, connection: Connection, claim: Claim) -> None:
        """A step of the item succeeded; the next step has all its attempts. Call it inside `fenced`."""
        connection.execute(sql.PROGRESS, {**_key(claim), "lease": self.lease_seconds})

    def finish(self, connection: Connection, queue: Queue, claim: Claim) -> None:
        """The item is done. Call it inside `fenced` together with the writes that complete the item, or first in a
        transaction: it is a fence itself.

        Raises:
            LeaseLost: another worker has taken the item over.
        """
        self._settle(connection, queue, claim, State.DONE, None, None, 0)

    def failed(self, connection: Connection, queue: Queue, claim: Claim, error: ImgpipeError) -> State:
        """The item failed: it waits for another try, or is given up. Call it inside `fenced`. Returns the new state.

        A Permanent error gives the item up at once, a Retryable one when its attempts are spent, and one that is not
        the item's fault (a backend or a budget) never does.
        """
        # The row's count and not the claim's: a step that succeeded since then has reset it.
        failures = _lock(connection, claim)
        uncharged = isinstance(error, PartnerAway | RateLimited)
        most = max(queue.max_attempts, queue.away_attempts if uncharged else 0)
        if not isinstance(error, Retryable):
            state, pause, spent = State.FAILED, 0.0, 1
        elif not error.spends_attempt:
            # A person has to mend these; a server usually comes back by itself.
            by_hand = isinstance(error, SpendingPaused | SettingsError)
            usual = self.spending_pause if by_hand else PAUSE_SECONDS
            state, pause, spent = State.WAITING, asked_for(error.retry_after) or usual, 0
        elif failures + 1 >= most:
            state, pause, spent = State.FAILED, 0.0, 1
        else:
            state, pause, spent = State.WAITING, max(backoff(failures), asked_for(error.retry_after)), 1
        again = "waits" if isinstance(error, Planned) else "retry"
        self._settle(connection, queue, claim, state, error.public, error.code, spent, pause, again)
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
        again: str = "",
    ) -> None:
        error = None if error is None else storable_text(error)[:ERROR_LENGTH]
        values = {
            **_key(claim),
            "state": state.value,
            "outcome": again if state is State.WAITING else state.value,
            "error": error,
            "code": code,
            "spent": spent,
            "pause": pause,
        }
        if connection.execute(sql.SETTLE, values).rowcount == 0:
            raise _lost(claim)
        queue.mirror(connection, [claim.item_id], state, error)

    def release(self, owner: str, *, died: bool = False) -> int:
        """Give back all items that `owner` holds, at once and without spending an attempt. Returns how many.

        Args:
            died: the worker's process died. Like the end of a lease this makes the items suspects, because one of them
                may have killed it.
        """
        with transaction(self.engine) as connection:
            return connection.scalar(sql.RELEASE, {"owner": owner, "lost": died, **LOST}) or 0

    def requeue(self, queue: Queue, ids: Sequence[int] | None = None) -> list[int]:
        """Let failed or ignored items wait again, but not withdrawn ones; None for every failed one. Returns ids."""
        states = [State.FAILED.value] if ids is None else [State.FAILED.value, State.IGNORED.value]
        requeued: list[int] = []
        while True:
            chosen = [letter.item_id for letter in self.failures(queue, limit=BATCH)] if ids is None else list(ids)
            with transaction(self.engine) as connection:
                changed = list(connection.scalars(sql.REQUEUE, {"queue": queue.name, "states": states, "ids": chosen}))
                if changed:
                    queue.mirror(connection, changed, State.WAITING, None)
            requeued += changed
            if ids is not None or len(chosen) < BATCH:
                return requeued

    def hasten(self, queue: Queue, ids: Sequence[int] | None = None) -> list[int]:
        """Make items due now that wait for the end of a pause; None for every one. Their attempts stay as they are.
        Returns their ids."""
        hastened: list[int] = []
        while True:
            with transaction(self.engine) as connection:
                if ids is None:
                    connection.execute(sql.INDEXES_ONLY)
                    chosen = list(connection.scalars(sql.PUT_OFF, {"queue": queue.name, "limit": BATCH}))
                else:
                    chosen = list(ids)
                hastened += connection.scalars(sql.HASTEN, {"queue": queue.name, "ids": chosen})
            if ids is not None or len(chosen) < BATCH:
                return hastened

    def ignore(self, queue: Queue, ids: Sequence[int]) -> list[int]:
        """Failed items no longer count as failures; their errors and attempts stay. Returns their ids."""
        with transaction(self.engine) as connection:
            return list(connection.scalars(sql.IGNORE, {"queue": queue.name, "ids": list(ids)}))

    def unignore(self, queue: Queue, ids: Sequence[int]) -> list[int]:
        """Ignored items count as failures again. Returns their ids."""
        with transaction(self.engine) as connection:
            return list(connection.scalars(sql.UNIGNORE, {"queue": queue.name, "ids": list(ids)}))

    @staticmethod
    def withdraw(
        connection: Connection, queue: Queue, ids: Sequence[int], reason: str, *, failed: bool = False
    ) -> list[int]:
        """Take items out of the queue for good, in the caller's transaction. A worker that holds one loses its lease at
        its next write. Returns the ids of items that were waiting or claimed (with `failed` also dead letters)."""
        reason = storable_text(reason)[:ERROR_LENGTH]
        values = {"queue": queue.name, "ids": list(ids), "reason": reason, "failed": failed}
        return list(connection.scalars(sql.WITHDRAW, values))


def _make_ready(connection: Connection, key: dict[str, str], limit: int) -> None:
    connection.execute(sql.INDEXES_ONLY)
    connection.execute(sql.MAKE_READY, {**key, **LOST, "limit": limit})


def _take(connection: Connection, taking: dict[str, Any], lane: int, limit: int) -> list[Claim]:
    """Up to `limit` items of a lane, in turn."""
    if limit <= 0:
        return []
    statement = sql.TAKE_OF_OTHERS if taking["but"] else sql.TAKE
    taken = _in_turn(connection.execute(statement, {**taking, "lane": lane, "limit": limit}))
    if taken:
        key = {"queue": taking["queue"], "partition": taking["partition"]}
        connection.execute(sql.SERVE, {**key, "lane": lane, "turn": taken[-1].turn})
    return taken


def _in_turn(rows: Iterable[Any]) -> list[Claim]:
    return sorted((Claim(*row) for row in rows), key=lambda claim: claim.turn)


def _lock(connection: Connection, claim: Claim) -> int:
    """Lock the item's row for this transaction; returns its failures.

    Raises:
        LeaseLost: another worker has taken the item over.
    """
    failures = connection.scalar(sql.CHECK, _key(claim))
    if failures is None:
        raise _lost(claim)
    return int(failures)


def _lost(claim: Claim) -> LeaseLost:
    return LeaseLost(f"{claim.queue} {claim.item_id}: taken over by another worker")


def _key(claim: Claim) -> dict[str, Any]:
    return {"queue": claim.queue, "item_id": claim.item_id, "owner": claim.owner, "attempt": claim.attempt}
