"""Figures of the queues: how much waits, for how long, what failed and why.

Nothing here reads the whole backlog. Triggers keep counts (`work_counts`); ages and lists come from the ends of
indexes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, TextClause, text

from imgpipe_orchestration.storage.claims_sql import INDEXES_ONLY
from imgpipe_orchestration.storage.queues import WITHDRAWN, Queue, State
from imgpipe_orchestration.storage.rows import transaction

STUCK_SECONDS = 3600.0
"""Items that are unfinished for longer are stuck (the specification's monitoring figure)."""
STUCK_LIMIT = 1000
"""Stuck items are counted up to this number."""
AVERAGE_OVER = 200
"""The average time is that of so many finished items."""


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """One queue at a glance."""

    queue: str
    waiting: int
    claimed: int
    done: int
    """Finished and not yet removed by retention."""
    failed: int
    ignored: int
    oldest_waiting_seconds: float | None
    """Since the oldest waiting item was enqueued or requeued; None when nothing waits."""
    stuck: int
    """Neither done nor failed after STUCK_SECONDS; counted up to STUCK_LIMIT."""
    average_seconds: float | None
    """From enqueued to done, over the last AVERAGE_OVER items; None when nothing is done."""


@dataclass(frozen=True, slots=True)
class HeldUp:
    """Why items of a queue wait: a budget, a partner that is away, an earlier error, or a job that somebody stopped."""

    queue: str
    error: str
    count: int
    """Among the first HELD_UP_LIMIT of the queue."""
    due_at: datetime | None
    """When the first of them is tried again; None for as soon as the reason is gone."""


Place = tuple[datetime, str, int]
"""Of a dead letter: its `failed_at`, `queue` and `item_id`."""

HELD_UP_LIMIT = 1000

RECENT_SECONDS = 300.0
"""How far back `recent_attempts` looks."""


def recent_attempts(connection: Connection) -> Sequence[Row[Any]]:
    """How many attempts (`n`) ended within RECENT_SECONDS, by `queue` and `outcome`."""
    connection.execute(INDEXES_ONLY)
    return connection.execute(_RECENT, {"seconds": RECENT_SECONDS}).all()


def stage_times(connection: Connection) -> Sequence[Row[Any]]:
    """The totals of every stage that ever worked: `queue`, `stage`, `outcome` (done, retried, failed or lost), `items`,
    and `seconds` summed over them."""
    query = "select queue, stage, outcome, items, seconds from stage_times order by queue, stage, outcome"
    return connection.execute(text(query)).all()


class Backlog:
    """The figures of one database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def counts(self) -> dict[str, QueueCounts]:
        """Figures of every queue that has items, by name; as fast for a long backlog as for a short one."""
        values = {"stuck": STUCK_SECONDS, "stuck_limit": STUCK_LIMIT, "average_over": AVERAGE_OVER}
        return {row.queue: QueueCounts(*row) for row in self._look(_COUNTS, values)}

    def held_up(self, *, limit: int = 100) -> list[HeldUp]:
        """What keeps waiting items from being done, the reason of most items first."""
        return [HeldUp(*row) for row in self._look(_HELD_UP, {"items": HELD_UP_LIMIT, "limit": limit})]

    def failures(
        self, queue: Queue | None = None, *, limit: int = 100, before: Place | None = None, ignored: bool = False
    ) -> Sequence[Row[Any]]:
        """Dead letters of one queue or of all, the latest first: rows of items, with `failed_at`, when it failed, was
        ignored or taken back, and `attempts`, how often it was claimed.

        Args:
            before: the last one of the previous page.
            ignored: those that somebody ignores, instead of those that nobody does.
        """
        values: dict[str, Any] = {"queue": queue and queue.name, "limit": limit}
        if before is not None:
            values |= dict(zip(("at", "last_queue", "last_id"), before, strict=True))
        statement = _failures(one_queue=queue is not None, paged=before is not None, ignored=ignored)
        return self._look(text(statement), values)

    def history(self, queue: Queue, item_id: int) -> Sequence[Row[Any]]:
        """An item's ended attempts, oldest first, as far back as retention keeps them. Their `outcome` is done, retry,
        waits (`errors.Planned`), failed, or lost when the worker vanished."""
        return self._look(_HISTORY, {"queue": queue.name, "item_id": item_id})

    def _look(self, statement: TextClause, values: dict[str, Any]) -> Sequence[Any]:
        with transaction(self.engine) as connection:
            connection.execute(INDEXES_ONLY)
            return connection.execute(statement, values).all()


_BY_STATE = ", ".join(f"coalesce(sum(n) filter (where state = '{one}'), 0)::bigint as {one}" for one in State)
_COUNTS = text(f"""
    with totals as (select queue, state, sum(n)::bigint as n from work_counts group by queue, state),
    queues as (select queue, {_BY_STATE} from totals group by queue having bool_or(n <> 0))
    select q.*,
        (select extract(epoch from now() - w.created_at)::float8 from work_items w
            where w.queue = q.queue and w.state = 'waiting'
            order by w.created_at limit 1),
        (select count(*) from (select from work_items w
            where w.queue = q.queue and w.state in ('waiting', 'claimed')
            and w.created_at < now() - make_interval(secs => :stuck)
            limit :stuck_limit) as stuck),
        (select avg(extract(epoch from last.updated_at - last.created_at))::float8 from (
            select w.updated_at, w.created_at from work_items w
            where w.queue = q.queue and w.state = 'done'
            order by w.updated_at desc limit :average_over) as last)
    from queues q order by q.queue
""")

# Ordered like the index of items that wait for a moment; without that the planner would read all ready items as well.
_HELD_UP = text("""
    select q.queue, w.error, count(*), min(w.due_at)
    from (select queue from work_counts where state = 'waiting' group by queue having sum(n) <> 0) q
    cross join lateral (
        select error, due_at from work_items
        where queue = q.queue and state = 'waiting' and due_at is not null
        order by partition, due_at limit :items
    ) w where w.error is not null group by q.queue, w.error order by 3 desc, 1, 2 limit :limit
""")

_RECENT = text("""
    select queue, outcome, count(*) as n from work_attempts
    where ended_at >= now() - make_interval(secs => :seconds) group by queue, outcome order by queue, outcome
""")

_HISTORY = text("""
    select attempt, owner, started_at, ended_at, outcome, error, error_code from work_attempts
    where queue = :queue and item_id = :item_id order by id
""")


def _failures(*, one_queue: bool, paged: bool, ignored: bool) -> str:
    """A statement for each index; one with an `or` would use none."""
    conditions = [f"state = 'ignored' and error_code is distinct from '{WITHDRAWN}'" if ignored else "state = 'failed'"]
    if one_queue:
        conditions.append("queue = :queue")
    if paged and one_queue:
        conditions.append("(updated_at, item_id) < (:at, :last_id)")
    elif paged:
        conditions.append("(updated_at, queue, item_id) < (:at, :last_queue, :last_id)")
    order = "updated_at desc, item_id desc" if one_queue else "updated_at desc, queue desc, item_id desc"
    return f"""
        select queue, item_id, tenant, partition, error, error_code, attempt as attempts, updated_at as failed_at
        from work_items
        where {" and ".join(conditions)} order by {order} limit :limit
    """
