"""The avatars' pages: ask for people, follow a task, look at the people, export them."""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict

from imgpipe_orchestration.avatars import records, routes
from imgpipe_orchestration.avatars.lifecycle import KEPT_DAYS, name_of
from imgpipe_orchestration.avatars.model import ENDED, MOST_PERSONAS, Step, TaskRequest, TaskStatus
from imgpipe_orchestration.avatars.records import Persona
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.gateway.pages.frame import Number, Page, back_to
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.values import RowId

router = APIRouter(prefix="/avatars", include_in_schema=False)

PER_PAGE = 20
SHOWN_DAYS = 7
PRESET = TaskRequest(count=3)
"""What the form asks for unless somebody changes it."""


@router.get("", response_class=Response)
def tasks(page: Page, services: ServicesDep, before: Number = "") -> Response:
    found = routes.tasks(services, before=int(before) if before else None, limit=PER_PAGE)
    with transaction(services.engine) as connection:
        faces = records.first_pictured(connection, [task.task_id for task in found.tasks])
    days = [] if before else routes.daily(services, days=SHOWN_DAYS)
    return page(
        "avatars.html",
        tasks=found.tasks,
        faces=faces,
        more=found.next,
        most=MOST_PERSONAS,
        preset=PRESET,
        days=days,
        working=any(task.status not in ENDED for task in found.tasks),
    )


class AskedFor(TaskRequest):
    model_config = ConfigDict(extra="ignore")  # the form's token


@router.post("", response_class=Response)
def ask(services: ServicesDep, _: Acting, wanted: Annotated[AskedFor, Form()]) -> Response:
    made = routes.create(wanted, services)
    return back_to(f"/avatars/{made.task_id}", notice="Task created. People appear here as they are invented.")


@router.get("/{task_id}", response_class=Response)
def task(page: Page, services: ServicesDep, task_id: str) -> Response:
    with transaction(services.engine) as connection:
        found = routes.existing(connection, task_id)
        progress = records.progress(connection, [found.id])[found.id]
        people = records.people_of(connection, found.id)
        codes = records.failure_codes(connection, found.id)
    kept_until = None
    if found.finished_at and found.status is not TaskStatus.COMPLETED:
        kept_until = found.finished_at + timedelta(days=KEPT_DAYS)
    return page(
        "avatar_task.html",
        task=routes.answer_of(found, progress),
        people=[(person, _pictures(person), codes.get(person.id)) for person in people],
        steps=len(Step),
        running=found.status not in ENDED,
        kept_until=kept_until,
    )


@router.post("/{task_id}/cancel", response_class=Response)
def cancel(services: ServicesDep, _: Acting, task_id: str) -> Response:
    routes.cancel(task_id, services)
    return back_to(f"/avatars/{task_id}", notice="Task cancelled.")


@router.post("/{task_id}/retry", response_class=Response)
def retry(services: ServicesDep, _: Acting, task_id: str) -> Response:
    again = routes.retry_failed(task_id, services).retried
    return back_to(f"/avatars/{task_id}", notice=f"{again} {'person' if again == 1 else 'people'} will be tried again.")


@router.get("/{task_id}/export", response_class=Response)
def export(
    services: ServicesDep, _: Operator, task_id: str, format: Literal["csv", "jsonl", "zip"] = "csv"
) -> StreamingResponse:
    return routes.export_task(task_id, services, format=format)


@router.get("/{task_id}/{person_id}/{name}", response_class=Response)
def picture(
    services: ServicesDep, _: Operator, task_id: str, person_id: RowId, name: str, small: bool = True
) -> Response:
    """A picture, served by the gateway because the page's policy allows no other host; `small` for the thumbnail."""
    with transaction(services.engine) as connection:
        found = routes.existing(connection, task_id)
        person = records.persona(connection, person_id)
        deleted = deletions.is_deleted(connection, name_of(connection, person_id))
    described = person.images.get(name)
    if deleted or not described or person.task_id != found.id:
        raise NotFound("There is no such picture.")
    key: str = ((described.get("thumbnails") or {}).get("webp") if small else None) or described["key"]
    data, head = services.avatars_bucket.get_with_head(key)
    return Response(data, media_type=head.content_type, headers={"Cache-Control": "private, max-age=3600"})


def _pictures(person: Persona) -> list[str]:
    """The names of the pictures that are made, the selfie first."""
    there = (name for name, described in person.images.items() if described.get("key"))
    return sorted(there, key=lambda name: (name != "base", name))
