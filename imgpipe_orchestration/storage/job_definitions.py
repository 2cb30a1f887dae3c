"""Jobs that people start and stop by name: their definition and last result, as rows of `job_definitions`.

`interval` is as it was written; `last_result` is what the last run reported.
A stopped job keeps its row (`enabled` is false), so its result stays visible and it can start again unchanged.
"""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.errors import BadInput, NotFound

SHORTEST = timedelta(seconds=1)
LONGEST = timedelta(days=7)

_INTERVAL = re.compile(r"(?:(?P<hours>\d{1,6})h)?(?:(?P<minutes>\d{1,6})m)?(?:(?P<seconds>\d{1,6})s)?", re.ASCII)


def parse_interval(written: str) -> timedelta:
    """`10s`, `2m` or `1h30m` as a duration.

    Raises:
        BadInput: not written that way, or not between a second and seven days.
    """
    match = _INTERVAL.fullmatch(written.strip())
    if not match or not match.group():
        raise BadInput(f"{written!r} is not an interval: write it like 10s, 2m or 1h30m", field="interval")
    interval = timedelta(**{unit: int(number) for unit, number in match.groupdict(default="0").items()})
    if not SHORTEST <= interval <= LONGEST:
        raise BadInput(f"{written!r} is out of range: 1s to 168h", field="interval")
    return interval


def state(job: Row[Any]) -> Literal["stopped", "running", "active"]:
    """What a job does: `running` while a run works for it."""
    if not job.enabled:
        return "stopped"
    return "running" if job.last_started_at is not None and job.last_finished_at is None else "active"


def find(connection: Connection, job_id: str) -> Row[Any] | None:
    """The definition; None where no such job was ever defined."""
    if "\0" in job_id:  # PostgreSQL refuses it in any text
        return None
    return connection.execute(text("select * from job_definitions where id = :id"), {"id": job_id}).one_or_none()


def get(connection: Connection, job_id: str) -> Row[Any]:
    """The definition.

    Raises:
        NotFound: no such job was ever defined.
    """
    found = find(connection, job_id)
    if found is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return found


def put(connection: Connection, definition: Mapping[str, Any]) -> bool:
    """Define or redefine a job by its columns, and enable it. Returns whether it is new."""
    # xmax is 0 in a row that this statement inserted.
    new = connection.scalar(
        text("""
            insert into job_definitions (id, name, description, type, interval, payload, enabled)
            values (:id, :name, :description, :type, :interval, cast(:payload as jsonb), true)
            on conflict (id) do update set name = excluded.name, description = excluded.description,
                type = excluded.type, interval = excluded.interval, payload = excluded.payload, enabled = true,
                updated_at = now()
            returning xmax = 0
        """),
        {**definition, "payload": json.dumps(definition["payload"])},
    )
    return bool(new)


def switch(connection: Connection, job_id: str, *, on: bool) -> Row[Any]:
    """Start or stop the job as it was last defined.

    Raises:
        NotFound: no such job was ever defined.
    """
    statement = text("update job_definitions set enabled = :on, updated_at = now() where id = :id and enabled <> :on")
    connection.execute(statement, {"id": job_id, "on": on})
    return get(connection, job_id)


def started(connection: Connection, job_id: str, run_id: str) -> None:
    """A run began."""
    connection.execute(
        text("""
            update job_definitions set last_started_at = now(), last_finished_at = null, last_run_id = :run
            where id = :id
        """),
        {"id": job_id, "run": run_id},
    )


def finished(connection: Connection, job_id: str, run_id: str, result: dict[str, Any]) -> None:
    """A run ended. Ignored if a later run has begun."""
    connection.execute(
        text("""
            update job_definitions set last_finished_at = now(), last_result = cast(:result as jsonb)
            where id = :id and last_run_id = :run
        """),
        {"id": job_id, "run": run_id, "result": json.dumps(result)},
    )


def stopped_unfinished(connection: Connection, run_id: str) -> None:
    """A run was killed. Ignored if it could write its end, or a later run has begun."""
    connection.execute(
        text("""
            update job_definitions set last_finished_at = now(), last_result = '{"ended": "the run stopped unfinished"}'
            where last_run_id = :run and last_finished_at is null
        """),
        {"run": run_id},
    )
