"""Job instances: one row per customer and run, from `queued` to its figures.

People request work with such a row (`POST /api/jobs/trigger`) and read the result from it. The gateway writes it with
a work item, a sensor asks Dagster for a run, and the run claims the item and finishes both. Whether an instance that
has not ended is `queued` or `running` is read from its item, so a lost lease needs no clean-up here.

A customer has at most one instance of a job that has not ended. `number` is the id of the work item; the queue has the
job's name. An item is done when its instance has ended, also when that failed: the next round tries again what is left.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import LeaseLost, NotFound
from imgpipe_orchestration.storage.backlog import STUCK_SECONDS, HeldUp, QueueCounts
from imgpipe_orchestration.storage.claims import Claim, Claims, Item, Queue
from imgpipe_orchestration.storage.jsonb import escaped, unescaped
from imgpipe_orchestration.storage.rows import transaction

MAX_LOSSES = 3
"""Runs that may die, or fail by a bug of ours, at an instance before it is `failed`."""


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


@dataclass(frozen=True, slots=True)
class JobInstance:
    """One row of `job_instances`. `customer_id` and `user_id` are empty if there is none."""

    id: UUID
    number: int
    job: str
    trigger: Trigger
    customer_id: str
    user_id: str
    status: JobStatus
    result: dict[str, Any]
    error: str | None
    run_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    claim: Claim | None = field(default=None, compare=False)
    """For one that was just taken."""
    again: bool = field(default=False, compare=False)
    """For one that was just taken: an earlier run had begun it, and nobody knows how far it got."""

    def shown(self) -> dict[str, Any]:
        """The API's answer: the row, and the figures of `result` at the same level."""
        row = {name: getattr(self, name) for name in _COLUMNS if name not in {"id", "number", "result"}}
        for name, value in row.items():
            row[name] = value.isoformat() if isinstance(value, datetime) else value
        nobody = {name: row[name] or None for name in ("customer_id", "user_id")}
        return {**self.result, "job_id": str(self.id), **row, **nobody}


def create_or_join(engine: Engine, job: str, *, customer_id: str = "", user_id: str = "") -> tuple[JobInstance, bool]:
    """The customer's queued or running instance of `job`, or a new queued one; and whether it existed.

    An existing one without a user (scheduled, or asked for without a user id) becomes the user's.
    """
    values = {"job": job, "customer": escaped(customer_id), "user": escaped(user_id)}
    with transaction(engine) as connection:
        made = connection.execute(_CREATE_OR_JOIN, values).one()
        if made.new:
            Claims.enqueue(connection, Queue(job), [Item(made.number, tenant=values["customer"])])
        return _read(connection.execute(_GET, {"id": made.id}).one()), not made.new


def get(engine: Engine, job_id: str | UUID, *, customer_id: str | None = None) -> JobInstance:
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
    if row is None or (customer_id is not None and unescaped(row.customer_id) != customer_id):
        raise unknown
    return _read(row)


def recent(engine: Engine, job: str, *, customer_id: str | None = None, limit: int = 10) -> list[JobInstance]:
    """A job's newest instances, of one customer or (None) of all."""
    whose = "and j.customer_id = :customer" if customer_id is not None else ""
    statement = text(f"{_ROWS} where j.job = :job {whose} order by j.created_at desc, j.id limit :limit")
    values = {"job": job, "customer": escaped(customer_id or ""), "limit": limit}
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(statement, values)]


def first_due(engine: Engine, job: str) -> str | None:
    """The customer of an instance that waits for a run, and of those the first that asked; None where none waits."""
    with transaction(engine) as connection:
        found = connection.scalar(_FIRST_DUE, {"job": job})
    return None if found is None else unescaped(found)


def counts(connection: Connection, job: str) -> QueueCounts:
    """A job's instances counted like a queue's items; of those that ended, only those of the last 24 hours."""
    row = connection.execute(_COUNTS, {"job": job, "stuck": STUCK_SECONDS}).one()
    return QueueCounts(
        job, row.waiting, row.running, row.done, row.failed, 0, row.oldest_seconds, row.stuck, row.average_seconds
    )


def failures(connection: Connection, job: str, *, limit: int) -> list[JobInstance]:
    """Each customer's newest instance of a job that failed in the last 24 hours, the latest first: one whose jobs fail
    at every round must not crowd out the others."""
    return [_read(row) for row in connection.execute(_FAILURES, {"job": job, "limit": limit})]


def held_up(connection: Connection, job: str, *, limit: int) -> list[HeldUp]:
    """Why queued instances are not begun, the reason of most instances first."""
    return [HeldUp(*row) for row in connection.execute(_HELD_UP, {"job": job, "limit": limit})]


def start(claims: Claims, job: str, run_id: str, limit: int) -> list[JobInstance]:
    """Take up to `limit` instances that wait for a run."""
    return _taken(claims, job, claims.claim(Queue(job), run_id, limit), run_id)


def begin(
    claims: Claims, job: str, customers: Iterable[str], run_id: str, *, trigger: Trigger = Trigger.SCHEDULED
) -> list[JobInstance]:
    """The instances of some customers for a run, running; customers for whom another run works are left out.

    A queued instance that a customer asked for is started instead of a new one, and an instance that this run had
    begun, or has taken over, is continued.
    """
    queue = Queue(job)
    # In a fixed order, so that two runs that begin the same customers cannot deadlock.
    values = {"job": job, "trigger": trigger.value, "customers": sorted(map(escaped, customers))}
    with transaction(claims.engine) as connection:
        new = connection.execute(_CREATE, values)
        Claims.enqueue(connection, queue, [Item(row.number, tenant=row.customer_id) for row in new])
        numbers = set(connection.scalars(_OPEN, values))
    mine = [claim for claim in claims.owned(queue, run_id) if claim.item_id in numbers]
    claims.make_ready(queue)  # the run that holds one may be dead
    others = claims.claim_these(queue, run_id, sorted(numbers - {claim.item_id for claim in mine}))
    continued = [replace(one, again=True) for one in _taken(claims, job, mine, run_id)]
    return continued + _taken(claims, job, others, run_id)


def _taken(claims: Claims, job: str, taken: Sequence[Claim], run_id: str) -> list[JobInstance]:
    """The instances of claims, marked as begun. Those whose items lost too many runs fail instead."""
    held = {claim.item_id: claim for claim in taken}
    if not held:
        return []
    with transaction(claims.engine) as connection:
        lost = [number for number, claim in held.items() if claim.losses >= MAX_LOSSES]
        _give_up(connection, job, lost)
        begun = connection.execute(_BEGIN, {"numbers": [n for n in held if n not in lost], "run": run_id}).all()
        gone = held.keys() - {row.number for row in begun} - set(lost)
        Claims.withdraw(connection, Queue(job), sorted(gone), "Its job was deleted.")
    return [
        replace(_read(row), claim=held[row.number], again=held[row.number].attempt > 1)
        for row in sorted(begun, key=lambda row: (row.created_at, row.number))
    ]


@dataclass(frozen=True, slots=True)
class JobResult:
    """How an instance ended: failed or completed, its figures, and an error if there was one."""

    instance: JobInstance
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    failed: bool = False


def finish(claims: Claims, results: Sequence[JobResult]) -> set[UUID]:
    """End instances that were taken. Returns the ids of those that no longer belonged to their run and were left as
    they are."""
    lost = set()
    with transaction(claims.engine) as connection:
        for one in results:
            instance = one.instance
            if instance.claim is None:
                raise ValueError(f"job {instance.id} was not taken")
            try:
                claims.finish(connection, Queue(instance.job), instance.claim)
            except LeaseLost:
                lost.add(instance.id)
                continue
            values = {
                "id": instance.id,
                "status": (JobStatus.FAILED if one.failed else JobStatus.COMPLETED).value,
                "result": json.dumps(dict(one.result)),
                "error": one.error and one.error.replace("\0", "\\0"),
            }
            connection.execute(_FINISH, values)
    return lost


def cancel(engine: Engine, run_id: str) -> int:
    """Somebody cancelled the run: what it still holds fails, instead of starting again. Returns how many."""
    with transaction(engine) as connection:
        held = connection.execute(_HELD, {"run": run_id}).all()
        for row in held:
            _give_up(connection, row.job, [row.number])
    return len(held)


def _give_up(connection: Connection, job: str, numbers: Sequence[int]) -> None:
    given_up = Claims.withdraw(connection, Queue(job), numbers, "Its runs were interrupted or cancelled.")
    connection.execute(_GIVE_UP, {"job": job, "numbers": given_up})


def keep_waiting(engine: Engine, job: str, reason: str) -> None:
    """Give the reason why queued instances cannot be begun now; it stays on each until it is begun."""
    with transaction(engine) as connection:
        connection.execute(_KEEP_WAITING, {"job": job, "reason": reason})


def _read(row: Row[Any]) -> JobInstance:
    values = {name: getattr(row, name) for name in _COLUMNS}
    values |= {name: unescaped(values[name]) for name in ("customer_id", "user_id")}
    status, error = JobStatus(row.status), row.error
    if row.finished_at is None and row.at_work:
        status = JobStatus.RUNNING
    elif row.finished_at is None and row.started_at is not None:
        error = error or f"The run {row.run_id} was interrupted."
    return JobInstance(**{**values, "trigger": Trigger(row.trigger), "status": status, "error": error})


_COLUMNS = tuple(one.name for one in fields(JobInstance) if one.compare)
_ROWS = """
    select j.*, w.state is not distinct from 'claimed' as at_work from job_instances j
    left join work_items w on w.queue = j.job and w.item_id = j.number
"""
_GET = text(f"{_ROWS} where j.id = :id")

# By the item: one whose pause or lease is over waits as well.
_FIRST_DUE = text("""
    select j.customer_id from job_instances j join work_items w on w.queue = j.job and w.item_id = j.number
    where j.job = :job and j.status = 'queued' and coalesce(w.due_at, '-infinity') <= now()
    order by j.created_at, j.number limit 1
""")

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

_BEGIN = text("""
    update job_instances set run_id = :run, error = null,
        started_at = case when run_id is not distinct from :run then started_at else now() end
    where number = any(cast(:numbers as bigint[])) and status = 'queued' returning *, true as at_work
""")

_FINISH = text("""
    update job_instances set status = :status, result = cast(:result as jsonb), error = :error, finished_at = now()
    where id = :id
""")

_HELD = text("""
    select j.job, j.number from work_items w join job_instances j on j.job = w.queue and j.number = w.item_id
    where w.owner = :run and w.state = 'claimed' order by j.number for update of w
""")

_GIVE_UP = text("""
    update job_instances set status = 'failed', finished_at = now(),
        error = 'The run ' || coalesce(run_id, '') || ' was interrupted.'
    where job = :job and number = any(cast(:numbers as bigint[]))
""")

_KEEP_WAITING = text("""
    update job_instances j set error = :reason from work_items w
    where j.job = :job and j.status = 'queued' and j.error is distinct from :reason
        and w.queue = j.job and w.item_id = j.number and w.state = 'waiting'
""")

_HELD_UP = text("""
    select job, error, count(*), cast(null as timestamptz) from job_instances
    where job = :job and status = 'queued' and error is not null group by job, error order by 3 desc, 2 limit :limit
""")

_FAILURES = text("""
    select * from (
        select distinct on (customer_id) *, false as at_work from job_instances
        where job = :job and status = 'failed' and finished_at >= now() - interval '1 day'
        order by customer_id, finished_at desc, id
    ) newest
    order by finished_at desc, id limit :limit
""")

_COUNTS = text(f"""
    select * from (
        select count(*) filter (where not at_work) as waiting, count(*) filter (where at_work) as running,
            cast(extract(epoch from now() - min(created_at) filter (where not at_work)) as float8) as oldest_seconds,
            count(*) filter (where created_at < now() - make_interval(secs => :stuck)) as stuck
        from ({_ROWS} where j.job = :job and j.status = 'queued') as rows
    ) as open cross join (
        select count(*) filter (where status = 'completed') as done,
            count(*) filter (where status = 'failed') as failed,
            cast(avg(extract(epoch from finished_at - created_at)) filter (where status = 'completed') as float8)
                as average_seconds
        from job_instances
        where job = :job and status in ('completed', 'failed') and finished_at >= now() - interval '1 day'
    ) as ended
""")
