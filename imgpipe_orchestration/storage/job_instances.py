"""Job instances: one row per customer and run, from `queued` to its figures.

People request work with such a row (`POST /api/jobs/trigger`) and read the result from it. The gateway writes it as
`queued`, a sensor asks Dagster for a run, and the run starts it under a lease and finishes it.

    queued ──start──► running ──finish──► completed | failed
      ▲                  │
      └─── interrupted ──┘  the run failed or its lease ended: waits again (MAX_ATTEMPTS times), and the next run knows
                            that it had begun before

A running instance belongs to one run (`run_id`) until its lease ends. Writes of other runs are refused, so a run that
was believed dead can't overwrite its successor.
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

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.storage import job_instances_sql as sql
from imgpipe_orchestration.storage.backlog import STUCK_SECONDS, HeldUp, QueueCounts
from imgpipe_orchestration.storage.jsonb import escaped, unescaped
from imgpipe_orchestration.storage.leases import kept_alive
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing

MAX_ATTEMPTS = 3
"""Interrupted runs after which an instance is `failed`."""


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
    """`traceparent` of the request for it."""
    again: bool = field(default=False, compare=False)
    """For one that was just taken: an earlier run had begun it, and nobody knows how far it got."""

    def shown(self) -> dict[str, Any]:
        """The API's answer: the row, and the figures of `result` at the same level."""
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
    """The customer's queued or running instance of `job`, or a new queued one; and whether it existed.

    An existing one without a user (scheduled, or asked for without a user id) becomes the user's.
    """
    with transaction(engine) as connection:
        _alone(connection, job, [customer_id])
        _expire(connection, job)
        row = connection.execute(sql.OPEN, {"job": job, "customers": [escaped(customer_id)]}).first()
        if row is not None:
            if user_id and not row.user_id:
                row = connection.execute(sql.ASKED_BY, {"id": row.id, "user": escaped(user_id)}).one()
            return _read(row), True
        trace = tracing.current()
        values = {"job": job, "customer": escaped(customer_id), "user": escaped(user_id), "trace": trace}
        return _read(connection.execute(sql.CREATE, values).one()), False


# --- looking ---------------------------------------------------------------------------------------------------------


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
        row = connection.execute(sql.GET, {"id": key}).one_or_none()
    if row is None:
        raise unknown
    instance = _read(row)
    if customer_id is not None and instance.customer_id != customer_id:
        raise unknown
    return instance


def recent(engine: Engine, job: str, *, customer_id: str | None = None, limit: int = 10) -> list[JobInstance]:
    """A job's newest instances, of one customer or (None) of all."""
    whose = "and customer_id = :customer" if customer_id is not None else ""
    statement = text(f"select * from job_instances where job = :job {whose} order by created_at desc, id limit :limit")
    values = {"job": job, "customer": escaped(customer_id or ""), "limit": limit}
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(statement, values)]


def counts(connection: Connection, job: str) -> QueueCounts:
    """A job's instances counted like a queue's items; of those that ended, only those of the last 24 hours."""
    row = connection.execute(sql.COUNTS, {"job": job, "stuck": STUCK_SECONDS}).one()
    return QueueCounts(
        job, row.waiting, row.running, row.done, row.failed, 0, row.oldest_seconds, row.stuck, row.average_seconds
    )


def failures(connection: Connection, job: str, *, limit: int) -> list[JobInstance]:
    """Each customer's newest instance of a job that failed in the last 24 hours, the latest first: one whose jobs fail
    at every round must not crowd out the others."""
    return [_read(row) for row in connection.execute(sql.FAILURES, {"job": job, "limit": limit})]


def failed_of_late(connection: Connection, job: str) -> int:
    """Instances of a job that failed in the last 24 hours."""
    return connection.scalar(sql.FAILED_OF_LATE, {"job": job}) or 0


def queued(engine: Engine, job: str, *, limit: int = 1000) -> list[JobInstance]:
    """Instances that wait for a run, oldest first. Before that, those whose lease ended are queued again or fail."""
    with transaction(engine) as connection:
        _expire(connection, job)
        return [_read(row) for row in connection.execute(sql.QUEUED, {"job": job, "limit": limit})]


def held_up(connection: Connection, job: str, *, limit: int) -> list[HeldUp]:
    """Why queued instances are not begun, the reason of most instances first."""
    return [HeldUp(*row) for row in connection.execute(sql.HELD_UP, {"job": job, "limit": limit})]


# --- working ---------------------------------------------------------------------------------------------------------


def start(engine: Engine, instances: Sequence[JobInstance], run_id: str, *, lease_seconds: float) -> list[JobInstance]:
    """Take queued instances for the run; returns those that no other run took first."""
    if not instances:
        return []
    values = {"ids": [instance.id for instance in instances], "run": run_id, "lease": lease_seconds}
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(sql.START, values)]


def begin(
    engine: Engine,
    job: str,
    customers: Sequence[str],
    run_id: str,
    *,
    lease_seconds: float,
    trigger: Trigger = Trigger.SCHEDULED,
) -> list[JobInstance]:
    """The instances of some customers for a run, running; customers for whom another run works are left out.

    A queued instance that a customer asked for is started instead of a new one, and an instance that this run had
    begun, or has taken over, is continued.
    """
    whose = {"job": job, "customers": [escaped(customer) for customer in customers]}
    lease = {"run": run_id, "lease": lease_seconds}
    with transaction(engine) as connection:
        _alone(connection, job, customers)
        rows = connection.execute(sql.OPEN, whose).all()
        if any(row.status == JobStatus.RUNNING and row.run_id != run_id for row in rows):
            _expire(connection, job)  # the other run may be dead
            rows = connection.execute(sql.OPEN, whose).all()
        found = {row.customer_id: _read(row) for row in rows}
        mine = [one for one in found.values() if one.status is JobStatus.RUNNING and one.run_id == run_id]
        begun = [replace(one, again=True) for one in mine]
        if waiting := [one.id for one in found.values() if one.status is JobStatus.QUEUED]:
            begun += [_read(row) for row in connection.execute(sql.START, {"ids": waiting, **lease})]
        if new := [customer for customer in whose["customers"] if customer not in found]:
            values = {"job": job, "trigger": trigger.value, "customers": new, **lease}
            begun += [_read(row) for row in connection.execute(sql.CREATE_RUNNING, values)]
    return begun


def take_over(engine: Engine, run_id: str, new: str) -> int:
    """Give the running instances of a run to another one. The first can no longer finish them. Returns how many."""
    with transaction(engine) as connection:
        return connection.execute(sql.TAKE_OVER, {"run": run_id, "new": new}).rowcount


@dataclass(frozen=True, slots=True)
class JobResult:
    """How an instance ended: failed or completed, its figures, and an error if there was one."""

    instance: JobInstance
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    failed: bool = False


def finish(engine: Engine, results: Sequence[JobResult]) -> set[UUID]:
    """End the instances. Returns the ids of those that no longer belonged to their run and were left as they are."""
    values = {
        "ids": [one.instance.id for one in results],
        "runs": [one.instance.run_id for one in results],
        "attempts": [one.instance.attempts for one in results],
        "statuses": [(JobStatus.FAILED if one.failed else JobStatus.COMPLETED).value for one in results],
        "results": [json.dumps(dict(one.result)) for one in results],
        "errors": [one.error and one.error.replace("\0", "\\0") for one in results],
    }
    with transaction(engine) as connection:
        written = set(connection.scalars(sql.FINISH, values))
    return {one.instance.id for one in results} - written


def given_up(engine: Engine, job: str, *, limit: int = 1000) -> list[JobInstance]:
    """Instances that failed in the last 24 hours because their runs were interrupted or cancelled, and that have no
    result yet (see `explain`), so that nobody knows how far they got."""
    with transaction(engine) as connection:
        return [_read(row) for row in connection.execute(sql.GIVEN_UP, {"job": job, "limit": limit})]


def explain(engine: Engine, instances: Sequence[JobInstance], result: Mapping[str, Any]) -> None:
    """Give instances that were `given_up` a result."""
    values = {"ids": [instance.id for instance in instances], "result": json.dumps(dict(result))}
    with transaction(engine) as connection:
        connection.execute(sql.EXPLAIN, values)


@contextmanager
def hold(engine: Engine, run_id: str, *, lease_seconds: float) -> Iterator[None]:
    """Keep the leases of the instances of `run_id` alive while the block runs. If one ends, `finish` reports it."""

    def renew() -> None:
        with transaction(engine) as connection:
            connection.execute(sql.RENEW, {"run": run_id, "lease": lease_seconds})

    with kept_alive(renew, lease_seconds, name=f"job-heartbeat-{run_id[:8]}"):
        yield


# --- giving back -----------------------------------------------------------------------------------------------------


def interrupted(engine: Engine, run_id: str, *, spends_attempt: bool = True, again: bool = True) -> int:
    """The run ended with an error: its running instances are queued again or fail. Returns how many.

    Args:
        spends_attempt: False when a backend was away, so that they are tried again as often as it takes.
        again: False when somebody cancelled the run: then they fail, instead of starting again.
    """
    values = {"run": run_id, "most": MAX_ATTEMPTS if again else 0, "spent": int(spends_attempt)}
    with transaction(engine) as connection:
        return connection.execute(sql.INTERRUPT_RUN, values).rowcount


def keep_waiting(engine: Engine, job: str, reason: str) -> None:
    """Give the reason why queued instances cannot be begun now; it stays on each until it is begun."""
    with transaction(engine) as connection:
        connection.execute(sql.KEEP_WAITING, {"job": job, "reason": reason})


def _expire(connection: Connection, job: str) -> None:
    """Instances whose lease ended (kill -9, power failure) are queued again or fail."""
    connection.execute(sql.INTERRUPT_STALE, {"job": job, "most": MAX_ATTEMPTS, "spent": 1})


def _alone(connection: Connection, job: str, customers: Sequence[str]) -> None:
    """Lock these customers until the transaction ends: no other transaction may create an instance for them."""
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
