"""Job instances: one row per customer and run, from `queued` to its figures.

People request work with such a row (`POST /api/jobs/trigger`) and read the result from it. The gateway writes it with
a work item, a sensor asks Dagster for a run, and the run claims the item and finishes both. Whether an instance that
has not ended is `queued` or `running`, and why it waits, is read from its item, so a lost lease needs no clean-up here.

A customer has at most one instance of a job that has not ended. `number` is the id of the work item; the queue has the
job's name. An item is done when its instance has ended, also when that failed: the next round tries again what is left.
It fails only when it is given up, because its runs died.

The functions return rows with the columns of the table. `customer_id` and `user_id` are empty if there is none.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import ImgpipeError, NotFound
from imgpipe_orchestration.storage.claims import Claims, Item, Queue, State
from imgpipe_orchestration.storage.jsonb import storable_text
from imgpipe_orchestration.storage.queues import PAUSE_SECONDS
from imgpipe_orchestration.storage.rows import transaction


class JobStatus(StrEnum):
    """The state of an instance."""

    QUEUED = "queued"  # waits for a run
    RUNNING = "running"  # a run works on it
    COMPLETED = "completed"  # done; the figures are final
    FAILED = "failed"  # given up; `error` says why


class Trigger(StrEnum):
    """What made the instance."""

    SCHEDULED = "scheduled"  # the clock
    ON_DEMAND = "on_demand"  # somebody asked


def shown(row: Row[Any]) -> dict[str, Any]:
    """An instance as the API's answer: the row, and the figures of `result` at the same level."""
    answer = {**row.result, "job_id": str(row.id)}
    for name, value in row._mapping.items():
        if name not in ("id", "number", "result"):
            answer[name] = value.isoformat() if isinstance(value, datetime) else value or None
    return answer


def create_or_join(engine: Engine, job: str, *, customer_id: str = "", user_id: str = "") -> tuple[Row[Any], bool]:
    """The customer's queued or running instance of `job`, or a new queued one; and whether it existed.

    An existing one without a user (scheduled, or asked for without a user id) becomes the user's.
    """
    values = {"job": job, "customer": customer_id, "user": user_id}
    with transaction(engine) as connection:
        made = connection.execute(_CREATE_OR_JOIN, values).one()
        if made.new:
            Claims.enqueue(connection, Queue(job), [Item(made.number, tenant=customer_id)])
        return connection.execute(_GET, {"id": made.id}).one(), not made.new


def get(engine: Engine, job_id: str | UUID, *, customer_id: str | None = None) -> Row[Any]:
    """One instance.

    Args:
        customer_id: the customer who asks, and sees only their own; None for an operator, who sees all.

    Raises:
        NotFound: there is none with that id, or it is another customer's.
    """
    unknown = NotFound(f"There is no job {str(job_id)!r}.")
    try:
        key = job_id if isinstance(job_id, UUID) else UUID(job_id)
    except ValueError:
        raise unknown from None
    with transaction(engine) as connection:
        row = connection.execute(_GET, {"id": key}).one_or_none()
    if row is None or (customer_id is not None and row.customer_id != customer_id):
        raise unknown
    return row


def recent(engine: Engine, job: str, *, customer_id: str | None = None, limit: int = 10) -> Sequence[Row[Any]]:
    """A job's newest instances, of one customer or (None) of all."""
    whose = "and j.customer_id = :customer" if customer_id is not None else ""
    statement = text(f"{_ROWS} where j.job = :job {whose} order by j.created_at desc, j.id limit :limit")
    values = {"job": job, "customer": customer_id or "", "limit": limit}
    with transaction(engine) as connection:
        return connection.execute(statement, values).all()


def failures(connection: Connection, job: str, *, limit: int) -> Sequence[Row[Any]]:
    """Each customer's newest instance of a job that failed in the last 24 hours, the latest first: one whose jobs fail
    at every round must not crowd out the others."""
    return connection.execute(_FAILURES, {"job": job, "limit": limit}).all()


def ensure(connection: Connection, job: str, customers: Iterable[str], trigger: Trigger) -> list[int]:
    """The numbers of some customers' instances that have not ended; a customer without one gets one, queued."""
    # In a fixed order, so that two runs that do this for the same customers cannot deadlock.
    values = {"job": job, "trigger": trigger.value, "customers": sorted(customers)}
    new = connection.execute(_CREATE, values)
    Claims.enqueue(connection, Queue(job), [Item(row.number, tenant=row.customer_id) for row in new])
    return list(connection.scalars(_OPEN, values))


def asked_for(engine: Engine, job: str, *, limit: int) -> Sequence[int]:
    """The numbers of instances that somebody asked for and no run has begun, the oldest first."""
    with transaction(engine) as connection:
        return connection.scalars(_ASKED_FOR, {"job": job, "limit": limit}).all()


def begin(connection: Connection, run_id: str, numbers: Sequence[int]) -> Sequence[Row[Any]]:
    """Begin instances whose items a run has claimed: their `number`, `id` and `customer_id`, and `again` if an earlier
    run had begun it, and nobody knows how far it got. One that was deleted or has ended is missing."""
    return connection.execute(_BEGIN, {"run": run_id, "numbers": list(numbers)}).all()


def finish(connection: Connection, number: int, result: Mapping[str, Any], *, error: str | None, failed: bool) -> None:
    """End an instance. Call it in the transaction that finishes its item.

    Args:
        result: its figures.
        error: what went wrong, if something did; with that an instance may be completed or `failed`.
    """
    values = {
        "number": number,
        "status": (JobStatus.FAILED if failed else JobStatus.COMPLETED).value,
        "result": json.dumps(dict(result)),
        "error": error and storable_text(error),
    }
    connection.execute(_FINISH, values)


def keep_waiting(engine: Engine, job: str, error: ImgpipeError) -> None:
    """No instance can be begun at the moment: their items pause, with the reason."""
    values = {"queue": job, "error": error.public, "code": error.code, "pause": PAUSE_SECONDS}
    with transaction(engine) as connection:
        connection.execute(_KEEP_WAITING, values)


def follow(connection: Connection, numbers: Sequence[int], state: State, error: str | None) -> None:
    """The mirror of a job's queue: an instance fails when its item is given up, and is queued again with it, unless the
    customer has a later one. The end is written by `finish`."""
    if state is State.FAILED:
        connection.execute(_FAIL, {"numbers": list(numbers), "error": error})
    elif state is State.WAITING and error is None:
        connection.execute(_REQUEUE, {"numbers": list(numbers)})


def cancel(engine: Engine, run_id: str, *, a_round: bool = True) -> int:
    """Somebody cancelled the run: what it still holds fails, instead of starting again, and if it was at a round, that
    ends. Returns how many failed."""
    with transaction(engine) as connection:
        held = connection.execute(_HELD, {"run": run_id}).all()
        for job in {row.job for row in held if a_round}:
            dropped = connection.scalars(_DROP_ROUND, {"job": job}).all()
            Claims.withdraw(connection, Queue(job), dropped, "Its round was cancelled.")
        for row in held:
            Claims.withdraw(connection, Queue(row.job), [row.number], "Its run was cancelled.")
        reason = f"The run {run_id} was interrupted."
        connection.execute(_FAIL, {"numbers": [row.number for row in held], "error": reason})
    return len(held)


_KEEP_WAITING = text("""
    update work_items set error = :error, error_code = :code, updated_at = now(),
        due_at = now() + make_interval(secs => :pause)
    where queue = :queue and state = 'waiting' and (due_at is null or due_at <= now())
""")

_ROWS = """
    select j.id, j.number, j.job, j.trigger, j.customer_id, j.user_id, j.result, j.run_id, j.created_at, j.started_at,
        j.finished_at, case when j.status = 'queued' and w.state = 'claimed' then 'running' else j.status end as status,
        case when j.status <> 'queued' then j.error
            when w.state = 'waiting' then coalesce(w.error, 'The run ' || j.run_id || ' was interrupted.')
        end as error
    from job_instances j left join work_items w on w.queue = j.job and w.item_id = j.number
"""
_GET = text(f"{_ROWS} where j.id = :id")

_CREATE_OR_JOIN = text("""
    insert into job_instances as j (job, trigger, customer_id, user_id) values (:job, 'on_demand', :customer, :user)
    on conflict (job, customer_id) where status = 'queued'
    do update set user_id = coalesce(nullif(j.user_id, ''), excluded.user_id)
    returning id, number, xmax = 0 as new
""")

_CREATE = text("""
    insert into job_instances (job, trigger, customer_id)
    select :job, :trigger, customer from unnest(cast(:customers as text[])) as customer
    on conflict (job, customer_id) where status = 'queued' do nothing returning number, customer_id
""")

_OPEN = text("""
    select number from job_instances where job = :job and customer_id = any(:customers) and status = 'queued'
""")

_ASKED_FOR = text("""
    select j.number from job_instances j join work_items w on w.queue = j.job and w.item_id = j.number
    where j.job = :job and j.status = 'queued' and j.started_at is null and w.state = 'waiting'
        and (j.trigger = 'on_demand' or j.user_id <> '') order by j.number limit :limit
""")

_DROP_ROUND = text("""
    delete from job_instances j using work_items w
    where j.job = :job and j.status = 'queued' and j.trigger = 'scheduled' and j.user_id = '' and j.started_at is null
        and w.queue = j.job and w.item_id = j.number and w.state = 'waiting'
    returning j.number
""")

_BEGIN = text("""
    update job_instances set run_id = :run, error = null, started_at = coalesce(started_at, now())
    where number = any(cast(:numbers as bigint[])) and status = 'queued'
    returning number, id, customer_id, started_at < now() as again
""")

_FINISH = text("""
    update job_instances set status = :status, result = cast(:result as jsonb), error = :error, finished_at = now()
    where number = :number
""")

_FAIL = text("""
    update job_instances set status = 'failed', error = :error, finished_at = now()
    where number = any(cast(:numbers as bigint[])) and status = 'queued'
""")

_REQUEUE = text("""
    update job_instances j set status = 'queued', error = null, finished_at = null
    where number = any(cast(:numbers as bigint[])) and status = 'failed' and not exists (
        select from job_instances later
        where later.job = j.job and later.customer_id = j.customer_id and later.number > j.number
    )
""")

_HELD = text("""
    select j.job, j.number from work_items w join job_instances j on j.job = w.queue and j.number = w.item_id
    where w.owner = :run and w.state = 'claimed' order by j.number for update of w
""")

_FAILURES = text("""
    select * from (
        select distinct on (customer_id) id, customer_id, error, finished_at from job_instances
        where job = :job and status = 'failed' and finished_at >= now() - interval '1 day'
        order by customer_id, finished_at desc, id
    ) newest
    order by finished_at desc, id limit :limit
""")
