"""Queries of tasks: one task, a page, progress, and tasks waiting for a manifest or clean-up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.avatars.model import ENDED, TaskStatus
from imgpipe_orchestration.errors import NotFound


@dataclass(frozen=True, slots=True)
class Task:
    """One row of `generation_tasks`. `id` is the row's number, `task_id` the public id."""

    id: int
    task_id: str
    status: TaskStatus
    persona_count: int
    brief: str
    language: str
    style: str
    seed: int
    urgent: bool
    error_log: str | None
    waiting_for: str | None
    manifest_url: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Progress:
    """A task's people by state, the sum of their finished steps (seven each), and its cost in US dollars."""

    total: int
    invented: int
    completed: int
    failed: int
    cancelled: int
    pending: int
    steps_done: int
    cost_usd: Decimal


COLUMNS = ", ".join(Task.__slots__)
ENDED_SQL = ", ".join(f"'{status}'" for status in ENDED)


def task_of(row: Row[Any]) -> Task:
    values = dict(row._mapping)
    return Task(**{**values, "status": TaskStatus(values["status"])})


def by_public_id(connection: Connection, task_id: str) -> Task:
    """
    Raises:
        NotFound: there is no such task.
    """
    row = connection.execute(text(f"select {COLUMNS} from generation_tasks where task_id = :id"), {"id": task_id})
    found = row.one_or_none()
    if found is None:
        raise NotFound(f"There is no avatar task {task_id!r}.")
    return task_of(found)


def get(connection: Connection, task: int) -> Task:
    """The task of a row number that is known to exist."""
    return task_of(
        connection.execute(text(f"select {COLUMNS} from generation_tasks where id = :id"), {"id": task}).one()
    )


def page(connection: Connection, *, status: TaskStatus | None, before: int | None, limit: int) -> list[Task]:
    """Tasks, newest first; `before` is the row number of the last one of the previous page."""
    values = {"status": status.value if status else None, "before": before, "limit": limit}
    return [task_of(row) for row in connection.execute(_PAGE, values)]


def numbers(connection: Connection, task_ids: Sequence[str]) -> list[int]:
    """The row numbers of tasks; those that do not exist are left out."""
    query = text("select id from generation_tasks where task_id = any(:ids) order by id")
    return list(connection.scalars(query, {"ids": list(task_ids)}))


def progress(connection: Connection, tasks: Sequence[int]) -> dict[int, Progress]:
    """The progress of some tasks, by row number."""
    return {row.id: Progress(*row[1:]) for row in connection.execute(_PROGRESS, {"ids": list(tasks)})}


def unwritten(connection: Connection, *, limit: int = 50) -> list[Task]:
    """Completed tasks whose manifest is not in the bucket yet."""
    return [task_of(row) for row in connection.execute(_UNWRITTEN, {"limit": limit})]


def removable(connection: Connection, days: float) -> list[Task]:
    """The first hundred cancelled and failed tasks whose images have been kept for `days`, oldest first."""
    return [task_of(row) for row in connection.execute(_REMOVABLE, {"days": days})]


_PAGE = text(f"""
    select {COLUMNS} from generation_tasks
    where (cast(:status as text) is null or status = :status) and (cast(:before as bigint) is null or id < :before)
    and not exists (select from deletions d where d.kind = 'avatars' and d.item = generation_tasks.id)
    order by id desc limit :limit
""")

_PROGRESS = text("""
    select t.id, t.persona_count, count(r.firstname), count(*) filter (where r.status = 'completed'),
        count(*) filter (where r.status = 'failed'), count(*) filter (where r.status = 'cancelled'),
        count(*) filter (where r.status = 'pending'), coalesce(sum(r.step), 0), coalesce(sum(r.cost_usd), 0)
            + coalesce((select sum(b.cost_usd) from generation_batches b where b.task_id = t.id), 0)
    from generation_tasks t left join generation_results r on r.task_id = t.id
    where t.id = any(:ids) group by t.id
""")

_UNWRITTEN = text(f"""
    select {COLUMNS} from generation_tasks where status = 'completed' and manifest_url is null
    order by finished_at limit :limit
""")

_REMOVABLE = text(f"""
    select {COLUMNS} from generation_tasks
    where status in ('failed', 'cancelled') and images_removed_at is null
        and finished_at <= now() - make_interval(secs => :days * 86400)
    order by finished_at limit 100
""")
