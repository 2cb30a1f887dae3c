"""The avatars' routes: create, follow, cancel, retry and export tasks; figures."""

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Connection, Row

from imgpipe_orchestration.avatars import export, lifecycle, records, store
from imgpipe_orchestration.avatars.lifecycle import PERSONAS, TASKS
from imgpipe_orchestration.avatars.model import TaskRequest, TaskStatus
from imgpipe_orchestration.avatars.records import Day, PersonaFacts, Task, TaskFacts
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, ServicesDep, allowed
from imgpipe_orchestration.web.idempotency import IdempotencyKey, once
from imgpipe_orchestration.web.values import RowId

router = APIRouter(prefix="/api/avatars", tags=["avatars"], dependencies=[Depends(allowed)])


class ProgressAnswer(BaseModel):
    """People by state; `percent` counts the steps that are done, and is 100 once the task has ended, however."""

    total: int
    invented: int
    completed: int
    failed: int
    cancelled: int
    pending: int
    percent: float


class TaskAnswer(TaskFacts):
    count: int
    progress: ProgressAnswer
    cost_usd: Decimal


class PersonaAnswer(PersonaFacts):
    result_id: int


class TaskDetail(TaskAnswer):
    personas: list[PersonaAnswer]


class TaskList(BaseModel):
    tasks: list[TaskAnswer]
    next: int | None
    """Pass it as `before` to get the page that follows."""


class Retried(BaseModel):
    retried: int
    task: TaskAnswer


@router.post("/tasks", status_code=202)
def create(wanted: TaskRequest, services: ServicesDep, idempotency_key: IdempotencyKey = None) -> TaskAnswer:
    """Ask for people. They are invented and pictured in the background; follow them by `task_id`."""

    def ask(connection: Connection) -> TaskAnswer:
        created = store.create(connection, services.claims, wanted)
        audit.note(subject=created.task_id)
        return _current(connection, created.task_id)

    return once(services.engine, "avatars/tasks", idempotency_key, wanted.model_dump_json(), TaskAnswer, ask)


@router.get("/tasks")
def tasks(
    services: ServicesDep,
    status: TaskStatus | None = None,
    before: RowId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> TaskList:
    """Tasks, newest first."""
    with transaction(services.engine) as connection:
        found = records.page(connection, status=status, before=before, limit=limit)
        progress = records.progress(connection, [task.id for task in found])
    answers = [answer_of(task, progress[task.id]) for task in found]
    return TaskList(tasks=answers, next=found[-1].id if len(found) == limit else None)


@router.get("/tasks/{task_id}")
def task(task_id: str, services: ServicesDep) -> TaskDetail:
    """One task: progress, people with their URLs, errors and cost."""
    with transaction(services.engine) as connection:
        found = existing(connection, task_id)
        progress = records.progress(connection, [found.id])[found.id]
        people = records.people_of(connection, found.id)
    shown = [PersonaAnswer(**person.model_dump(), result_id=person.id) for person in people]
    return TaskDetail(**answer_of(found, progress).model_dump(), personas=shown)


@router.post("/tasks/{task_id}/cancel")
def cancel(task_id: str, services: ServicesDep) -> TaskAnswer:
    """Stop a task. Its people and their pictures are deleted after a week."""
    with transaction(services.engine) as connection:
        found = existing(connection, task_id)
        store.cancel(connection, services.claims, found)
        return _current(connection, task_id)


@router.post("/tasks/{task_id}/retry-failed")
def retry_failed(task_id: str, services: ServicesDep) -> Retried:
    """Retry the people who failed; those who succeeded stay as they are."""
    with transaction(services.engine) as connection:
        found = existing(connection, task_id)
        count = store.retry_failed(connection, services.claims, found)
        return Retried(retried=count, task=_current(connection, task_id))


class DeletedAvatars(BaseModel):
    id: str
    state: Literal["trashed", "purged"]
    deleted_at: datetime


@router.delete("/tasks/{task_id}", status_code=202)
def delete_task(task_id: str, services: ServicesDep, caller: Allowed) -> DeletedAvatars:
    """Delete a task with its people and pictures, for good. A running one is cancelled first."""
    with transaction(services.engine) as connection:
        found = records.get(connection, task_id)
    gone = trash.delete(services, TASKS, f"task_{found.id}", [found.id], user=None, who=caller.name, purge=True)
    return DeletedAvatars(id=task_id, state=gone.state, deleted_at=gone.trashed_at)


@router.delete("/personas/{persona_id}", status_code=202)
def delete_persona(persona_id: RowId, services: ServicesDep, caller: Allowed) -> DeletedAvatars:
    """Delete one person (`result_id`) with the pictures, for good."""
    with transaction(services.engine) as connection:
        what = lifecycle.name_of(connection, persona_id)
    gone = trash.delete(services, PERSONAS, what, [persona_id], user=None, who=caller.name, purge=True)
    return DeletedAvatars(id=str(persona_id), state=gone.state, deleted_at=gone.trashed_at)


Format = Annotated[Literal["csv", "jsonl", "zip"], Query()]


@router.get(
    "/tasks/{task_id}/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}, "application/zip": {}}}},
)
def export_task(task_id: str, services: ServicesDep, format: Format = "csv") -> StreamingResponse:
    """The people as CSV or JSON Lines, or their pictures as ZIP."""
    with transaction(services.engine) as connection:
        found = existing(connection, task_id)
        # All at once, before the answer begins: it could not be called off, and a slow client would hold a connection.
        people = records.people_of(connection, found.id)
    kinds: dict[str, tuple[str, Iterator[bytes]]] = {
        "csv": ("text/csv; charset=utf-8", export.as_csv(people)),
        "jsonl": ("application/x-ndjson", export.as_jsonl(people)),
        "zip": ("application/zip", export.as_zip(services, found, people)),
    }
    media_type, body = kinds[format]
    name = f"avatars-{found.task_id}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return StreamingResponse(body, media_type=media_type, headers=headers)


@router.get("/figures")
def daily(services: ServicesDep, days: Annotated[int, Query(ge=1, le=366)] = 30) -> list[Day]:
    """People and costs by day."""
    with transaction(services.engine) as connection:
        return records.daily(connection, days)


def existing(connection: Connection, task_id: str) -> Task:
    """A task that is not deleted.

    Raises:
        NotFound, Deleted: there is none, or none any more.
    """
    found = records.get(connection, task_id)
    if deletions.is_deleted(connection, f"task_{found.id}"):
        raise deletions.Deleted(deletions.DELETED)
    return found


def _current(connection: Connection, task_id: str) -> TaskAnswer:
    """A task after a change, read in the change's own transaction, so that after a 503 nothing is changed."""
    found = records.get(connection, task_id)
    return answer_of(found, records.progress(connection, [found.id])[found.id])


def answer_of(task: Task, progress: Row[Any]) -> TaskAnswer:
    """The public facts of a task, without its people."""
    shown = ProgressAnswer(**progress._asdict())
    return TaskAnswer(**task.model_dump(), count=task.persona_count, progress=shown, cost_usd=progress.cost_usd)
