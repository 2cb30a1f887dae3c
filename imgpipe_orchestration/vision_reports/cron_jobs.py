"""The rows of `cron_jobs`: external API, organization and schedule of each. Keys are encrypted by the callers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports.cron import next_tick

COLUMNS = (
    "name",
    "schedule",
    "timezone",
    "external_api_get_url",
    "external_api_post_url",
    "external_api_key",
    "backend_api_url",
    "organization_id",
    "enabled",
    "urgent",
)
"""The columns that a request may set."""

UNPLANNED = timedelta(hours=1)
"""Time to the next run of a job whose schedule cannot be read."""

log = logger(__name__)


def create(engine: Engine, values: Mapping[str, Any]) -> Row[Any]:
    """Add a job (all of COLUMNS); an enabled one is planned."""
    names = [*COLUMNS, "next_run_at"]
    places = ", ".join(f":{name}" for name in names)
    with transaction(engine) as rows:
        row = {**values, "next_run_at": _planned(rows, values)}
        audit.note(after=_told(values))
        return rows.execute(
            text(f"insert into cron_jobs ({', '.join(names)}) values ({places}) returning *"), row
        ).one()


def listed(engine: Engine, *, enabled_only: bool = False) -> list[Row[Any]]:
    """All jobs, oldest first."""
    with transaction(engine) as rows:
        return list(
            rows.execute(text("select * from cron_jobs where enabled or not :only order by id"), {"only": enabled_only})
        )


def found(engine: Engine, job_id: UUID) -> Row[Any]:
    """One job.

    Raises:
        NotFound: there is none of this id.
    """
    with transaction(engine) as rows:
        return _row(rows, job_id)


def change(engine: Engine, job_id: UUID, values: Mapping[str, Any]) -> Row[Any]:
    """Set some of COLUMNS. The next tick is planned again only if schedule, time zone or `enabled` changed.

    Raises:
        NotFound: there is none of this id.
    """
    with transaction(engine) as rows:
        job = locked(rows, job_id)
        new = {name: values.get(name, getattr(job, name)) for name in COLUMNS}
        replan = any(new[name] != getattr(job, name) for name in ("schedule", "timezone", "enabled"))
        new |= {"next_run_at": _planned(rows, new) if replan else job.next_run_at, "id": job.id}
        changed = [name for name in COLUMNS if new[name] != getattr(job, name)]
        audit.note(
            before=_told({name: getattr(job, name) for name in changed}),
            after=_told({name: new[name] for name in changed}),
        )
        sets = ", ".join(f"{name} = :{name}" for name in (*COLUMNS, "next_run_at"))
        return rows.execute(text(f"update cron_jobs set {sets} where id = :id returning *"), new).one()


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit keeps of a job's columns: not the tenant's key, nor addresses that may hold one."""
    hidden = ("key", "token", "url")
    return {name: "changed" if any(word in name for word in hidden) else value for name, value in values.items()}


def locked(rows: Connection, job_id: UUID) -> Row[Any]:
    """One job, locked until the transaction ends.

    Raises:
        NotFound: there is none of this id.
    """
    return _row(rows, job_id, "for update")


def any_due(rows: Connection) -> bool:
    """Whether some job's tick has come; one index look-up."""
    return bool(rows.scalar(text("select exists (select from cron_jobs where next_run_at <= now())")))


def take_due(rows: Connection) -> list[Row[Any]]:
    """The jobs whose tick has come, each planned for its next one. The caller starts their executions in the same
    transaction, so that a tick is neither lost nor taken twice.

    By the database's clock, as in `any_due`: with a machine's own clock, which may be late, a run could be started for
    a tick and not find it due."""
    now = time_of(rows)
    due = rows.execute(
        text("select * from cron_jobs where next_run_at <= :now order by id for update skip locked"), {"now": now}
    ).all()
    for job in due:
        rows.execute(
            text("update cron_jobs set next_run_at = :next where id = :id"),
            {"next": _next(job, now), "id": job.id},
        )
    return list(due)


def _next(job: Row[Any], now: datetime) -> datetime:
    """The job's next tick. An unreadable schedule must not raise, which would stop all other jobs: this machine may
    lack the time zone, and the row may have been changed by hand."""
    try:
        return next_tick(job.schedule, job.timezone, now)
    except BadInput as error:
        log.error("cron job not planned", extra={"job": str(job.job_id), "error": error.public})
        return now + UNPLANNED


def _planned(rows: Connection, values: Mapping[str, Any]) -> datetime | None:
    if not values["enabled"]:
        return None
    return next_tick(values["schedule"], values["timezone"], time_of(rows))


def _row(rows: Connection, job_id: UUID, lock: str = "") -> Row[Any]:
    row = rows.execute(text(f"select * from cron_jobs where job_id = :id {lock}"), {"id": job_id}).one_or_none()
    if row is None:
        raise NotFound(f"No cron job {job_id}")
    return row
