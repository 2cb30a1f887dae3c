"""Job instances: one row per customer and run of a job, scheduled or asked for, from `queued` to its figures.

The row is how a person asks for work (`POST /api/jobs/trigger`) and how anyone sees what became of it. The gateway
writes it `queued`; a sensor asks Dagster for a run; the run starts it under a lease and finishes it.

    queued ──start──► running ──finish──► completed | failed
      ▲                  │
      └─── interrupted ──┘  the run ended badly, or its lease ran out: it waits again (MAX_ATTEMPTS times), and the run
                            that takes it knows that another had begun it

A running instance belongs to one run (`run_id`, a root run id) until its lease ends; what another run writes about it
is refused. So a run that was believed dead and comes back cannot overwrite the one that took over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.storage import job_instances_sql as sql
from imgpipe_orchestration.storage.backlog import STUCK_SECONDS, HeldUp, QueueCounts
from imgpipe_orchestration.storage.jsonb import escaped, unescaped
from imgpipe_orchestration.storage.leases import kept_alive
from imgpipe_orchestration.storage.rows import transaction

MAX_ATTEMPTS = 3
"""Runs that may be interrupted over an instance before it is `failed`."""


class JobStatus(StrEnum):
    """Where an instance stands."""

    QUEUED = "queued"  # asked for; a run will take it
    RUNNING = "running"  # a run works on it
    COMPLETED = "completed"  # done; the figures are final
    FAILED = "failed"  # given up; `error` says why


class Trigger(StrEnum):
    """What made the instance."""

    SCHEDULED = "scheduled"  # the clock
    ON_DEMAND = "on_demand"  # somebody asked


@dataclass(frozen=True, slots=True)
class JobInstance:
    """One row of `job_instances`. `customer_id` and `user_id` are empty where there is none."""

    id: UUID
    job: str
    trigger: Trigger
    customer_id: str
    user_id: str
    status: JobStatus
    result: dict[str, Any]
    error: str | None
    run_id: str | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    trace: str
    """`traceparent` of what asked for it."""
    again: bool = field(default=False, compare=False)
    """Of one that has just been taken: somebody had begun it before, and nobody knows how far they came."""

    def shown(self) -> dict[str, Any]:
        """What the API answers: the row, with the figures of `result` beside it."""
        return {
            **self.result,
            "job_id": str(self.id),
            "job": self.job,
            "trigger": self.trigger.value,
            "customer_id": self.customer_id or None,
            "user_id": self.user_id or None,
            "status": self.status.value,
            "error": self.error,
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat(),
            "started_at": self.started_at.isoformat() if self.started_at else None,
            "finished_at": self.finished_at.isoformat() if self.finished_at else None,
        }


# --- asking ----------------------------------------------------------------------------------------------------------


def create_or_join(engine: Engine, job: str, *, customer_id: str = "", user_id: str = "") -> tuple[JobInstance, bool]:
    """The customer's queued or running instance of `job`, or a new queued one; and whether one was joined.

    One that nobody has asked for so far (the clock did, or somebody without a name) is the user's from here on.
    """
    with transaction(engine) as connection:
        _alone(connection, job, [customer_id])
        _expire(connection, job)
        row = connection.execute(sql.OPEN, {"job": job, "customers": [escaped(customer_id)]}).first()
        if row is not None:
            if user_id and not row.user_id:
                row = connection.execute(sql.ASKED_BY, {"id": row.id, "user": escaped(user_id)}).one()
            return _read(row), True
        trace = str(tracing.current() or "")
        values = {"job": job, "customer": escaped(customer_id), "user": escaped(user_id), "trace": trace}
        return _read(connection.execute(sql.CREATE, values).one()), False


# --- looking ---------------------------------------------------------------------------------------------------------


def get(engine: Engine, job_id: str | UUID, *, customer_id: str | None = None) -> JobInstance:
    """One instance.

    Args:
        customer_id: who asks: a customer sees only their own; None is an operator, who sees all.

    Raises:
        NotFound: there is none by that id, or it is another customer's (which is not told apart).
    """
    unknown = NotFound(f"There is no job {str(job_id)!r}.")
    try:
        key = job_id if isinstance(job_id, UUID) else UUID(job_id)
    except ValueError:
        raise unknown from None
    with transaction(engine) as connection:
        row = connection.execute(sql.GET, {"id": key}).one_or_none()
    if row is None:
        raise unknown
    instance = _read(row)
    if customer_id is not None and instance.customer_id != customer_id:
        raise unknown
    return instance


def recent(engine: Engine, job: str, *, customer_id: str | None = None, limit: int = 10) -> list[JobInstance]:
    """A job's newest instances first: of one customer or (None: an operator asks) all."""
    whose = "and customer_id = :customer" if customer_id is not None else ""
    statement = text(f"select * from job_instances where job = :job {whose} order by created_at desc, id limit :limit")
    values = {"job": job, "customer": escaped(customer_id or ""), "limit": limit}
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(statement, values)]


def counts(connection: Connection, job: str) -> QueueCounts:
    """A job's instances as a queue's items; of those that ended, the ones of the last 24 hours."""
    row = connection.execute(sql.COUNTS, {"job": job, "stuck": STUCK_SECONDS}).one()
    return QueueCounts(
        job, row.waiting, row.running, row.done, row.failed, 0, row.oldest_seconds, row.stuck, row.average_seconds
    )


def failures(connection: Connection, job: str, *, limit: int) -> list[JobInstance]:
    """Instances of a job that failed in the last 24 hours, the latest first."""
    return [_read(row) for row in connection.execute(sql.FAILURES, {"job": job, "limit": limit})]


def failed_of_late(connection: Connection, job: str) -> int:
    """Instances of a job that failed in the last 24 hours."""
    return connection.scalar(sql.FAILED_OF_LATE, {"job": job}) or 0


def queued(engine: Engine, job: str, *, limit: int = 1000) -> list[JobInstance]:
    """What waits for a run, oldest first. Instances whose run died wait again from here on."""
    with transaction(engine) as connection:
        _expire(connection, job)
        return [_read(row) for row in connection.execute(sql.QUEUED, {"job": job, "limit": limit})]


def held_up(connection: Connection, job: str, *, limit: int) -> list[HeldUp]:
    """What keeps queued instances from being begun, most instances first."""
    return [HeldUp(*row) for row in connection.execute(sql.HELD_UP, {"job": job, "limit": limit})]


# --- working ---------------------------------------------------------------------------------------------------------


def start(engine: Engine, instances: Sequence[JobInstance], run_id: str, *, lease_seconds: float) -> list[JobInstance]:
    """Take queued instances for the run; those that another run was quicker to take are left out of the answer."""
    if not instances:
        return []
    values = {"ids": [instance.id for instance in instances], "run": run_id, "lease": lease_seconds}
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(sql.START, values)]


def begin(
    engine: Engine, job: str, customers: Sequence[str], run_id: str, *, lease_seconds: float
) -> list[JobInstance]:
    """The scheduled run reaches some customers: their running instances, without those for whom another run is at work.

    What a customer had asked for and still waits is started instead of a second one; what this very run (or the
    run it re-executes) had begun is taken up again.
    """
    whose = {"job": job, "customers": [escaped(customer) for customer in customers]}
    lease = {"run": run_id, "lease": lease_seconds}
    with transaction(engine) as connection:
        _alone(connection, job, customers)
        rows = connection.execute(sql.OPEN, whose).all()
        if any(row.status == JobStatus.RUNNING and row.run_id != run_id for row in rows):
            _expire(connection, job)  # its run may be dead
            rows = connection.execute(sql.OPEN, whose).all()
        found = {row.customer_id: _read(row) for row in rows}
        mine = [one for one in found.values() if one.status is JobStatus.RUNNING and one.run_id == run_id]
        begun = [replace(one, again=True) for one in mine]
        if waiting := [one.id for one in found.values() if one.status is JobStatus.QUEUED]:
            begun += [_read(row) for row in connection.execute(sql.START, {"ids": waiting, **lease})]
        if new := [customer for customer in whose["customers"] if customer not in found]:
            values = {"job": job, "customers": new, **lease}
            begun += [_read(row) for row in connection.execute(sql.CREATE_RUNNING, values)]
    return begun


@dataclass(frozen=True, slots=True)
class Ending:
    """How an instance ended: `failed` or completed, its figures, and what went wrong if something did."""

    instance: JobInstance
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    failed: bool = False


def finish(engine: Engine, endings: Sequence[Ending]) -> set[UUID]:
    """The instances are over. Returns the ids of those that were no longer their run's: they were left alone."""
    values = {
        "ids": [ending.instance.id for ending in endings],
        "runs": [ending.instance.run_id for ending in endings],
        "attempts": [ending.instance.attempts for ending in endings],
        "statuses": [(JobStatus.FAILED if ending.failed else JobStatus.COMPLETED).value for ending in endings],
        "results": [json.dumps(dict(ending.result)) for ending in endings],
        "errors": [ending.error and ending.error.replace("\0", "\\0") for ending in endings],
    }
    with transaction(engine) as connection:
        written = set(connection.scalars(sql.FINISH, values))
    return {ending.instance.id for ending in endings} - written


def given_up(engine: Engine, job: str, *, limit: int = 1000) -> list[JobInstance]:
    """Instances that failed in the last 24 hours because their runs were interrupted or cancelled: nobody knows how far
    those came, until `explain` says that somebody has dealt with it."""
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(sql.GIVEN_UP, {"job": job, "limit": limit})]


def explain(engine: Engine, instances: Sequence[JobInstance], result: Mapping[str, Any]) -> None:
    """Give those that were `given_up` a result."""
    values = {"ids": [instance.id for instance in instances], "result": json.dumps(dict(result))}
    with transaction(engine) as connection:
        connection.execute(sql.EXPLAIN, values)


@contextmanager
def hold(engine: Engine, run_id: str, *, lease_seconds: float) -> Iterator[None]:
    """Keep the leases of what `run_id` runs alive while the block runs. Should one run out, `finish` says so."""

    def renew() -> None:
        with transaction(engine) as connection:
            connection.execute(sql.RENEW, {"run": run_id, "lease": lease_seconds})

    with kept_alive(renew, lease_seconds, name=f"job-heartbeat-{run_id[:8]}"):
        yield


# --- giving back -----------------------------------------------------------------------------------------------------


def interrupted(engine: Engine, run_id: str, *, spends_attempt: bool = True, again: bool = True) -> int:
    """The run ended badly: what it still had running waits again or fails. Returns how many.

    Args:
        spends_attempt: False when a backend was away: then it waits as long as it takes.
        again: False when somebody cancelled the run: then it fails, or the cancelling would be in vain.
    """
    values = {"run": run_id, "most": MAX_ATTEMPTS if again else 0, "spent": int(spends_attempt)}
    with transaction(engine) as connection:
        return connection.execute(sql.INTERRUPT_RUN, values).rowcount


def keep_waiting(engine: Engine, job: str, reason: str) -> None:
    """What is queued cannot be begun now; each instance says why, until it is."""
    with transaction(engine) as connection:
        connection.execute(sql.KEEP_WAITING, {"job": job, "reason": reason})


def _expire(connection: Connection, job: str) -> None:
    """What nobody renewed (kill -9, power) waits again or fails."""
    connection.execute(sql.INTERRUPT_STALE, {"job": job, "most": MAX_ATTEMPTS, "spent": 1})


def _alone(connection: Connection, job: str, customers: Sequence[str]) -> None:
    """Until the transaction ends nobody else decides whether these customers have an open instance."""
    keys = [f"{job}\0{customer}".encode() for customer in customers]
    connection.execute(sql.LOCK, {"keys": keys})


def _read(row: Row[Any]) -> JobInstance:
    return JobInstance(
        id=row.id,
        job=row.job,
        trigger=Trigger(row.trigger),
        customer_id=unescaped(row.customer_id),
        user_id=unescaped(row.user_id),
        status=JobStatus(row.status),
        result=row.result,
        error=row.error,
        run_id=row.run_id,
        attempts=row.attempts,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        trace=row.trace,
        again=getattr(row, "again", False),
    )
