"""One mechanism for every queue: claim, lease, heartbeat, fence, back off, give up, requeue.

`work_items` holds one row per item and queue. It says who works on the item and when it is due next; what the item *is*
stands in its feature's own tables, which the feature writes in the same transaction.

The life of an item:

    waiting ──claim──► claimed ──finish──► done
       ▲                 │ │
       │◄──retry─────────┘ └──fail──► failed ──requeue──► waiting
       │◄──release (run cancelled, backend away: no attempt spent)
       │◄──the lease ran out (worker killed): the next claim takes the item over
                                          failed ──ignore──► ignored

`due_at` carries the schedule in one indexed column: for a waiting item the moment it may start, for a claimed one the
moment its lease ends. "Due" is the same comparison for both, so a crashed worker needs no clean-up.

Fairness is start-time fair queueing (Goyal, Vin, Cheng 1996) with equal weights: each item gets a `turn` one past its
tenant's last, but not before the turn now being served. A tenant with a million items waiting and one with a single
item take turns. Times are the database's clock, never the worker's.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, overload

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, LeaseLost, Retryable
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.storage import backlog, retention
from imgpipe_orchestration.storage.rows import transaction

log = logger(__name__)

BACKOFF_SECONDS = 5.0
"""First pause after a failure; doubled by each further one."""
BACKOFF_LIMIT_SECONDS = 600.0
PAUSE_SECONDS = 15.0
"""Pause when a backend or a budget was the reason: the item is not at fault and waits a little."""
MAX_LOSSES = 5
"""Workers that may die holding one item before the item is held to be the reason."""


class State(StrEnum):
    """Where an item stands in its queue."""

    WAITING = "waiting"  # may be claimed once due_at has passed
    CLAIMED = "claimed"  # a worker holds it until due_at
    DONE = "done"  # finished; the row stays for the history until retention takes it
    FAILED = "failed"  # attempts spent or hopeless: a dead letter, visible, can be requeued
    IGNORED = "ignored"  # a dead letter that somebody decided to leave


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one item. (owner, attempt) fences every write made under it."""

    queue: str
    item_id: int
    owner: str
    attempt: int
    failures: int
    losses: int
    tenant: str
    partition: str


Mirror = Callable[[Connection, Sequence[int], State, str | None], None]
"""Keeps a feature's own rows equal to their items: called with the connection of the very transaction that changes
the state, the item ids, the new state (WAITING with an error means "will be tried again") and the error or None."""


def _no_mirror(_: Connection, __: Sequence[int], ___: State, ____: str | None) -> None:
    """For queues whose items have no row elsewhere."""


@dataclass(frozen=True)
class Queue:
    """A queue by name, how often an item is tried, and how the feature's rows follow."""

    name: str
    max_attempts: int = 3
    mirror: Mirror = _no_mirror


@dataclass(frozen=True, slots=True)
class Item:
    """Something to enqueue: `tenant` is who waits their turn, `partition` the Dagster partition it belongs to."""

    id: int
    tenant: str = ""
    partition: str = ""


class Claims:
    """The queues of one database."""

    def __init__(self, engine: Engine, *, lease_seconds: float = 60.0) -> None:
        self.engine = engine
        self.lease_seconds = lease_seconds

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

        Args:
            delay: seconds before the items are due.
            again: items that are done, failed or ignored start anew; those that wait or are claimed stay as they are.

        Returns:
            how many were new.
        """
        added = 0
        # Tenants in a fixed order: two transactions that enqueue for the same tenants must not deadlock.
        for tenant in sorted({item.tenant for item in items}):
            theirs = [item for item in items if item.tenant == tenant]
            last = connection.scalar(_NEXT_TURNS, {"queue": queue.name, "tenant": tenant, "n": len(theirs)})
            assert last is not None  # noqa: S101 - RETURNING of an upsert always gives a row
            rows = {
                "queue": queue.name,
                "tenant": tenant,
                "delay": delay,
                "ids": [item.id for item in theirs],
                "partitions": [item.partition for item in theirs],
                "first": last - len(theirs),
            }
            added += connection.execute(_ENQUEUE_AGAIN if again else _ENQUEUE, rows).rowcount
        return added

    # --- looking -------------------------------------------------------------------------------------------------

    def due_partitions(self, queue: Queue, *, limit: int = 10) -> list[str]:
        """Partitions with something due, in order. Costs one index probe per partition, whatever the backlog."""
        with transaction(self.engine) as connection:
            rows = connection.execute(_DUE_PARTITIONS, {"queue": queue.name, "limit": limit})
            return [row.partition for row in rows]

    def owned(self, queue: Queue, owner: str) -> list[Claim]:
        """The items `owner` holds, in the order of their turns: how one step of a run finds what the last one left."""
        with transaction(self.engine) as connection:
            return [Claim(*row) for row in connection.execute(_OWNED, {"queue": queue.name, "owner": owner})]

    def counts(self) -> dict[str, backlog.QueueCounts]:
        """Items per state, ages and averages of every queue that holds anything; no dearer for a long backlog."""
        with transaction(self.engine) as connection:
            return backlog.counts(connection)

    def failures(
        self, queue: Queue | str | None = None, *, limit: int = 100, before: backlog.DeadLetter | None = None
    ) -> list[backlog.DeadLetter]:
        """Dead letters of one queue or of all, the latest first; `before` is the last one of the page before."""
        with transaction(self.engine) as connection:
            return backlog.failures(connection, _name(queue), limit=limit, before=before)

    def history(self, queue: Queue | str, item_id: int) -> list[backlog.Attempt]:
        """How an item's attempts ended, the first one first; as far back as retention keeps them."""
        with transaction(self.engine) as connection:
            return backlog.history(connection, _name(queue), item_id)

    def purge(self, days: float, *, limit: int = 100_000) -> retention.Purged:
        """Remove what has been done or ignored for `days`, with its attempts, in short transactions."""
        return retention.purge_work(self.engine, days, limit=limit)

    # --- taking --------------------------------------------------------------------------------------------------

    def claim(
        self,
        queue: Queue,
        owner: str,
        limit: int,
        *,
        partition: str = "",
        retries: int | None = None,
    ) -> list[Claim]:
        """Take up to `limit` due items of `partition` for `owner`, in turn, and start their leases.

        Args:
            retries: most items among them that failed before (None: no such bound). Keeps a wave of failures from
                filling every batch.
        """
        with transaction(self.engine) as connection:
            if retries is None:
                taken = self._take(connection, queue, owner, limit, partition, _CLAIM_ANY)
            else:
                taken = self._take(connection, queue, owner, min(retries, limit), partition, _CLAIM_RETRIES)
                taken += self._take(connection, queue, owner, limit - len(taken), partition, _CLAIM_FRESH)
            dead = [claim for claim in taken if claim.losses > MAX_LOSSES]
            for claim in dead:
                reason = f"The worker died {claim.losses} times while it held this item."
                self._settle(connection, queue, claim, State.FAILED, reason, "worker-died", 0)
        return [claim for claim in taken if claim.losses <= MAX_LOSSES]

    def _take(
        self, connection: Connection, queue: Queue, owner: str, limit: int, partition: str, statement: sa.TextClause
    ) -> list[Claim]:
        if limit <= 0:
            return []
        values = {
            "queue": queue.name,
            "partition": partition,
            "owner": owner,
            "limit": limit,
            "lease": self.lease_seconds,
        }
        rows = connection.execute(statement, values).all()
        lost = [row for row in rows if row.previous_owner is not None]
        if lost:
            connection.execute(
                _RECORD,
                [
                    {
                        "queue": queue.name,
                        "item_id": row.item_id,
                        "attempt": row.attempt - 1,
                        "owner": row.previous_owner,
                        "started_at": row.previous_claimed_at,
                        "outcome": "lost",
                        "error": "The worker stopped without a word; its lease ran out.",
                        "code": "lease-lost",
                    }
                    for row in lost
                ],
            )
        if rows:
            connection.execute(_SERVE_TURN, {"queue": queue.name, "turn": max(row.turn for row in rows)})
        return [
            Claim(queue.name, row.item_id, owner, row.attempt, row.failures, row.losses, row.tenant, partition)
            for row in sorted(rows, key=lambda row: row.turn)
        ]

    @contextmanager
    def hold(self, owner: str) -> Iterator[None]:
        """Keep the leases of `owner` alive while the block runs, from a thread of its own."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self.lease_seconds / 3):
                try:
                    self.heartbeat(owner)
                except BackendUnavailable as error:
                    # Nothing to do but go on: if the lease runs out meanwhile, the fences stop every write.
                    log.warning("heartbeat failed", extra={"owner": owner, "error": error.detail})

        thread = threading.Thread(target=beat, name=f"heartbeat-{owner[:8]}", daemon=True)
        self.heartbeat(owner)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def heartbeat(self, owner: str) -> int:
        """Renew every lease of `owner`; returns how many it holds."""
        with transaction(self.engine) as connection:
            return connection.execute(_HEARTBEAT, {"owner": owner, "lease": self.lease_seconds}).rowcount

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
        held = connection.scalar(_CHECK, _key(claim))
        if held is None:
            raise LeaseLost(f"{claim.queue} {claim.item_id}: taken over by another worker")

    def progress(self, connection: Connection, claim: Claim) -> None:
        """A step of the item succeeded: the next step starts with all its attempts. Inside `fenced`."""
        connection.execute(_PROGRESS, _key(claim))

    def finish(self, connection: Connection, queue: Queue, claim: Claim) -> None:
        """The item is done. Inside `fenced`, with the writes that make it so."""
        self._settle(connection, queue, claim, State.DONE, None, None, 0)

    def failed(self, connection: Connection, queue: Queue, claim: Claim, error: ImgpipeError) -> State:
        """The item failed: back to waiting with a pause, or given up. Inside `fenced`. Returns the new state.

        A Permanent error gives up at once; a Retryable one when the attempts are spent; one that is not the item's
        fault (a backend or a budget) never.
        """
        if not isinstance(error, Retryable):
            state, pause, spent = State.FAILED, 0.0, 1
        elif not error.spends_attempt:
            state, pause, spent = State.WAITING, error.retry_after or PAUSE_SECONDS, 0
        elif claim.failures + 1 >= queue.max_attempts:
            state, pause, spent = State.FAILED, 0.0, 1
        else:
            state, pause, spent = State.WAITING, max(backoff(claim.failures), error.retry_after or 0.0), 1
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
        values = {**_key(claim), "state": state.value, "error": error, "code": code, "spent": spent, "pause": pause}
        row = connection.execute(_SETTLE, values).one_or_none()
        if row is None:
            raise LeaseLost(f"{claim.queue} {claim.item_id}: taken over by another worker")
        outcome = "retry" if state is State.WAITING else state.value
        history = {**_key(claim), "started_at": row.claimed_at, "outcome": outcome, "error": error, "code": code}
        connection.execute(_RECORD, history)
        queue.mirror(connection, [claim.item_id], state, error)

    def release(self, owner: str) -> int:
        """Give back all that `owner` holds, at once and without spending an attempt. Returns how many."""
        with transaction(self.engine) as connection:
            return connection.execute(_RELEASE, {"owner": owner}).rowcount

    def requeue(self, queue: Queue, ids: Sequence[int] | None = None) -> list[int]:
        """Failed or ignored items (all when `ids` is None) wait again with fresh attempts. Returns the ids."""
        return self._bury(queue, ids, (State.FAILED, State.IGNORED), State.WAITING)

    def ignore(self, queue: Queue, ids: Sequence[int]) -> list[int]:
        """Failed items stay as they are and no longer count as failures. Returns their ids."""
        return self._bury(queue, ids, (State.FAILED,), State.IGNORED)

    def withdraw(self, connection: Connection, queue: Queue, ids: Sequence[int], reason: str) -> list[int]:
        """Take items out of the queue for good, in the caller's transaction, even from a worker that holds them: its
        next write finds the lease lost. Returns the ids that were waiting or claimed."""
        values = {"queue": queue.name, "ids": list(ids), "reason": reason}
        return list(connection.scalars(_WITHDRAW, values))

    def _bury(self, queue: Queue, ids: Sequence[int] | None, old: Sequence[State], new: State) -> list[int]:
        values: dict[str, Any] = {"queue": queue.name, "old": [s.value for s in old], "new": new.value}
        values |= {"every": ids is None, "ids": list(ids or [])}
        with transaction(self.engine) as connection:
            changed = [row.item_id for row in connection.execute(_BURY, values)]
            if changed:
                queue.mirror(connection, changed, new, None)
        return changed


def backoff(failures: int) -> float:
    """Seconds to wait after the (failures + 1)-th failure: exponential, capped, with half of it jitter."""
    full = min(BACKOFF_SECONDS * 2.0**failures, BACKOFF_LIMIT_SECONDS)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - jitter needs no cryptography


@overload
def _name(queue: Queue | str) -> str: ...
@overload
def _name(queue: Queue | str | None) -> str | None: ...
def _name(queue: Queue | str | None) -> str | None:
    return queue.name if isinstance(queue, Queue) else queue


def _key(claim: Claim) -> dict[str, Any]:
    return {"queue": claim.queue, "item_id": claim.item_id, "owner": claim.owner, "attempt": claim.attempt}


# --- the statements: PostgreSQL, one per verb above -----------------------------------------------------------------

_HELD = "queue = :queue and item_id = :item_id and owner = :owner and attempt = :attempt and state = 'claimed'"

_NEXT_TURNS = text("""
    insert into work_tenants as t (queue, tenant, last_turn)
    values (:queue, :tenant, coalesce((select turn from work_queues where queue = :queue), 0) + :n)
    on conflict (queue, tenant) do update set last_turn = greatest(t.last_turn, excluded.last_turn - :n) + :n
    returning last_turn
""")

_NEW_ITEMS = """
    insert into work_items (queue, item_id, tenant, partition, state, due_at, turn)
    select :queue, new.id, :tenant, new.partition, 'waiting', now() + make_interval(secs => :delay), :first + new.n
    from unnest(cast(:ids as bigint[]), cast(:partitions as text[])) with ordinality as new (id, partition, n)
    on conflict (queue, item_id)
"""
_ENQUEUE = text(f"{_NEW_ITEMS} do nothing")
_ENQUEUE_AGAIN = text(f"""{_NEW_ITEMS}
    do update set state = 'waiting', due_at = excluded.due_at, turn = excluded.turn, partition = excluded.partition,
        failures = 0, losses = 0, error = null, error_code = null, updated_at = now()
    where work_items.state in ('done', 'failed', 'ignored')
""")

# A loose index scan: PostgreSQL has none of its own, so the recursion jumps from one partition to the next.
_DUE_PARTITIONS = text("""
    with recursive known as (
        (select partition from work_items where queue = :queue and state in ('waiting', 'claimed')
         order by partition limit 1)
        union all
        select (select w.partition from work_items w
                where w.queue = :queue and w.state in ('waiting', 'claimed') and w.partition > known.partition
                order by w.partition limit 1)
        from known where known.partition is not null
    )
    select partition from known where partition is not null and exists (
        select from work_items w where w.queue = :queue and w.partition = known.partition
        and w.state in ('waiting', 'claimed') and w.due_at <= now())
    limit :limit
""")

_OWNED = text("""
    select queue, item_id, owner, attempt, failures, losses, tenant, partition from work_items
    where owner = :owner and queue = :queue and state = 'claimed' order by turn
""")


def _claim(condition: str) -> sa.TextClause:
    return text(f"""
        with due as (
            select item_id, state, owner, claimed_at from work_items
            where queue = :queue and partition = :partition and state in ('waiting', 'claimed') and due_at <= now()
            {condition}
            order by turn limit :limit for update skip locked
        )
        update work_items w set state = 'claimed', owner = :owner, attempt = w.attempt + 1,
            losses = w.losses + (due.state = 'claimed')::int, claimed_at = now(), updated_at = now(),
            due_at = now() + make_interval(secs => :lease)
        from due where w.queue = :queue and w.item_id = due.item_id
        returning w.item_id, w.attempt, w.failures, w.losses, w.tenant, w.turn,
            case when due.state = 'claimed' then due.owner end as previous_owner,
            due.claimed_at as previous_claimed_at
    """)


_CLAIM_ANY = _claim("")
_CLAIM_FRESH = _claim("and failures = 0")
_CLAIM_RETRIES = _claim("and failures > 0")

_SERVE_TURN = text("""
    insert into work_queues as q (queue, turn) values (:queue, :turn)
    on conflict (queue) do update set turn = greatest(q.turn, excluded.turn)
""")

_HEARTBEAT = text("""
    update work_items set due_at = now() + make_interval(secs => :lease) where owner = :owner and state = 'claimed'
""")

_CHECK = text(f"select 1 from work_items where {_HELD} for update")

_PROGRESS = text(f"update work_items set failures = 0, losses = 0, updated_at = now() where {_HELD}")

# An item that waits again takes the turn now being served: it has queued once already.
_SETTLE = text(f"""
    update work_items set state = :state, error = :error, error_code = :code, failures = failures + :spent,
        owner = null, updated_at = now(),
        turn = case when :state = 'waiting'
            then coalesce((select q.turn from work_queues q where q.queue = :queue), turn) else turn end,
        due_at = case when :state = 'waiting' then now() + make_interval(secs => :pause) end
    where {_HELD} returning claimed_at
""")

_RECORD = text("""
    insert into work_attempts (queue, item_id, attempt, owner, started_at, outcome, error, error_code)
    values (:queue, :item_id, :attempt, :owner, :started_at, :outcome, :error, :code)
""")

_RELEASE = text("""
    update work_items set state = 'waiting', owner = null, due_at = now(), updated_at = now()
    where owner = :owner and state = 'claimed'
""")

_WITHDRAW = text("""
    update work_items set state = 'ignored', error = :reason, owner = null, due_at = null, updated_at = now()
    where queue = :queue and item_id = any(cast(:ids as bigint[])) and state in ('waiting', 'claimed')
    returning item_id
""")

_BURY = text("""
    update work_items set state = :new, failures = 0, losses = 0, updated_at = now(),
        error = case when :new = 'waiting' then null else error end,
        due_at = case when :new = 'waiting' then now() end
    where queue = :queue and state = any(cast(:old as text[])) and (:every or item_id = any(cast(:ids as bigint[])))
    returning item_id
""")
