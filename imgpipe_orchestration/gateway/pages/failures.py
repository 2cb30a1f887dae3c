"""What failed in all queues, what is ignored of it, and what waits: why and how often it was tried; requeue or ignore
it, end its pause."""

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy import Row

from imgpipe_orchestration.auto_marker.model import JOB as MARKER
from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.gateway.pages.frame import Page, back_to, sent_from
from imgpipe_orchestration.gateway.pages.subjects import about_queue, advice, subjects
from imgpipe_orchestration.gateway.session import Acting
from imgpipe_orchestration.operations import pipelines
from imgpipe_orchestration.operations.pipelines import every_queue, queues
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.backlog import STUCK_LIMIT, Place
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.values import RowId

router = APIRouter(include_in_schema=False)

PER_PAGE = 50


@router.get("/failures", response_class=Response)
def failures(page: Page, services: ServicesDep, queue: str = "", ignored: bool = False, after: str = "") -> Response:
    """Failed or ignored items, the latest first, of one queue or of all. `after` is a cursor, see `_written`."""
    one = queues(queue)[0] if queue else None  # of a pipeline's name, the queue with its items
    found = services.claims.failures(one, limit=PER_PAGE + 1, before=_cursor(after), ignored=ignored)
    counts = {name: c.failed for name, c in services.claims.counts().items() if c.failed}
    more = _written(found[PER_PAGE - 1]) if len(found) > PER_PAGE else ""
    with transaction(services.engine) as connection:
        named = subjects(connection, [(letter.queue, letter.item_id) for letter in found[:PER_PAGE]])
        jobs_failed = len(job_instances.failures(connection, MARKER, limit=STUCK_LIMIT)) if not queue else 0
        paused = spending.pauses(connection)
    return page(
        "failures.html",
        letters=found[:PER_PAGE],
        counts=counts,
        chosen=queue,
        ignored=ignored,
        any_ignored=ignored or bool(services.claims.failures(limit=1, ignored=True)),
        days=services.settings.retention_days,
        more=more,
        first=not after,
        abouts={letter.queue: about_queue(letter.queue) for letter in found[:PER_PAGE]},
        subjects=named,
        jobs_failed=jobs_failed,
        paused=paused,
        held=[reason for reason in services.claims.held_up() if one is None or reason.queue == one.name],
    )


@router.get("/failures/{queue}/{item_id}", response_class=Response)
def failure(page: Page, services: ServicesDep, queue: str, item_id: RowId) -> Response:
    known = queues(queue)[0]
    attempts = services.claims.history(known, item_id)
    item = services.claims.find(known, item_id)
    trace = tracing.id_of(item.trace)
    with transaction(services.engine) as connection:
        subject = subjects(connection, [(known.name, item_id)]).get((known.name, item_id))
    if not (attempts or item.state or subject):
        raise NotFound(f"There is no item {item_id} in {known.name}.")
    return page(
        "attempts.html",
        about=about_queue(known.name),
        queue=known.name,
        item_id=item_id,
        attempts=attempts,
        item=item,
        advice=advice(item.error_code),
        subject=subject,
        trace=trace,
    )


@router.post("/failures/requeue", response_class=Response)
def requeue(services: ServicesDep, _: Acting, queue: Annotated[str, Form()] = "") -> Response:
    wanted = queues(queue)[:1] if queue else every_queue()
    done = sum(len(services.claims.requeue(one)) for one in wanted)
    back = f"/failures?{urlencode({'queue': queue})}" if queue else "/failures"
    if not done:
        return back_to(back, trouble="Nothing changed: none of them is failed any more.")
    said = "1 item waits" if done == 1 else f"{done} items wait"
    return back_to(back, notice=f"{said} again, with fresh attempts.")


@router.post("/failures/end_pauses", response_class=Response)
def end_pauses(request: Request, services: ServicesDep, _: Acting, queue: Annotated[str, Form()] = "") -> Response:
    """Try again what waits in a queue or in all of them, now, and ask paused providers again."""
    wanted = queues(queue)[:1] if queue else every_queue()
    due = sum(len(ids) for ids in pipelines.end_pauses(services, wanted).values())
    what = {0: "No item was waiting", 1: "1 item is tried again"}.get(due, f"{due} items are tried again")
    return back_to(sent_from(request) or "/failures", notice=f"The pauses are over. {what}.")


def _written(letter: Row[Any]) -> str:
    return f"{letter.failed_at.isoformat()}|{letter.queue}|{letter.item_id}"


def _cursor(after: str) -> Place | None:
    """The place of the last letter of the previous page, read from the link's cursor (`_written`)."""
    if not after:
        return None
    try:
        at, queue, item = after.split("|")
        return datetime.fromisoformat(at), queue, int(item)
    except ValueError as error:
        raise BadInput("This link to a further page is broken; start from the first one.", field="after") from error
