"""The vision reports' pages: cron jobs to create, edit, switch and run; their executions; the reports."""

import re
from contextlib import closing
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Form, Response
from pydantic import BaseModel, Json, SecretStr, ValidationError
from sqlalchemy import text

from imgpipe_orchestration.errors import BadInput, ImgpipeError
from imgpipe_orchestration.gateway.pages.filters import sentence
from imgpipe_orchestration.gateway.pages.frame import Page, back_to
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.vision_analysis import Unfinished
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.redaction import MASK
from imgpipe_orchestration.vision_reports import backend_routes, cron_jobs, executions, routes
from imgpipe_orchestration.vision_reports.listing import api_of
from imgpipe_orchestration.vision_reports.model import ApiAccess
from imgpipe_orchestration.vision_reports.routes import CronJobChange, NewCronJob
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.problems import fault_of
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(prefix="/vision-reports", include_in_schema=False)

SHOWN = 20
_TEST_SECONDS = 10.0
_REPORTS = text(
    "select batch_id from vision_batches where batch_id = any(cast(:ids as uuid[])) and status = 'completed'"
)
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LABELS = {
    "name": "Name",
    "organization_id": "Organization",
    "schedule": "Schedule",
    "timezone": "Time zone",
    "external_api_get_url": "Address that lists analyses",
    "external_api_post_url": "Address that takes reports",
    "external_api_key": "Bearer token of both",
    "backend_api_url": "Analysis backend",
}


class JobForm(BaseModel):
    """The submitted form. `shown` holds the values that it was rendered with. Only fields that differ are saved, so a
    colleague's change in the meantime survives, and so do the secrets in addresses, which are masked. `urgent` is
    false when its checkbox is ticked."""

    name: str = ""
    organization_id: str = ""
    schedule: str = "0 6 * * *"
    timezone: str = "UTC"
    external_api_get_url: str = ""
    external_api_post_url: str = ""
    external_api_key: str = ""
    backend_api_url: str = ""
    urgent: bool = True
    action: str = ""
    shown: Json[dict[str, Any]] = {}


@router.get("", response_class=Response)
def jobs(page: Page, services: ServicesDep) -> Response:
    found = routes.list_cron_jobs(services).jobs
    return page("vision_reports.html", jobs=found, newest=executions.newest(services.engine))


@router.get("/new", response_class=Response)
def new(page: Page) -> Response:
    return _form(page, JobForm().model_dump(), None)


@router.get("/{job_id}", response_class=Response)
def job(page: Page, services: ServicesDep, job_id: UUID) -> Response:
    found = routes.get_cron_job(job_id, services)
    shown = routes.list_executions(job_id, services, limit=SHOWN).executions
    working = any(one.finished_at is None for one in shown)
    ids = [one.batch_id for execution in shown for one in execution.analyses]  # another backend has ids of any form
    with transaction(services.engine) as connection:
        ours = connection.scalars(_REPORTS, {"ids": [one for one in ids if one and _UUID.fullmatch(one)]})
        reports = {str(one) for one in ours}
    return page("executions.html", job=found, executions=shown, working=working, reports=reports)


@router.get("/{job_id}/edit", response_class=Response)
def edit(page: Page, services: ServicesDep, job_id: UUID) -> Response:
    job = routes.get_cron_job(job_id, services).model_dump(include=set(JobForm.model_fields))
    return _form(page, job | {"shown": job}, job_id)


def _form(page: Page, job: dict[str, Any], job_id: UUID | None, **more: Any) -> Response:
    shown: dict[str, Any] = {"job": job, "job_id": str(job_id or ""), "labels": _LABELS, "wrong": {}, **more}
    return page("cron_job.html", **shown)


@router.post("/new", response_class=Response)
@router.post("/{job_id}/edit", response_class=Response)
def save(
    page: Page, services: ServicesDep, _: Acting, typed: Annotated[JobForm, Form()], job_id: UUID | None = None
) -> Response:
    """Create or change a job, or try its connection (`action` is `test`). Errors are shown beside their fields,
    and the form keeps what was typed."""
    given: dict[str, Any] = typed.model_dump(exclude={"action", "shown", "external_api_key"})
    given["backend_api_url"] = typed.backend_api_url or services.settings.backend_api_url
    if typed.external_api_key:
        given["external_api_key"] = SecretStr(typed.external_api_key)
    shown = typed.model_dump()
    sent = {field: value for field, value in given.items() if typed.shown.get(field) != value}
    if typed.action == "test":
        works, said = _tried(services, sent, job_id)
        return _form(page, shown, job_id, **{"notice" if works else "trouble": said})
    told = "Saved."
    try:
        if hidden := next((field for field in routes.ADDRESSES if MASK in sent.get(field, "")), None):
            raise BadInput(f"{hidden} has {MASK} in place of a secret; write it in full.", field=hidden)
        if job_id is None:
            job_id = routes.create_cron_job(NewCronJob(**sent), services).job_id
            told = "The cron job is created."
        elif sent:
            routes.change_cron_job(job_id, CronJobChange(**sent), services)
    except (ValidationError, BadInput) as error:
        return _form(page, shown, job_id, status=422, wrong=_wrong(error, sent, services))
    return back_to(f"/vision-reports/{job_id}", notice=told)


def _tried(services: Services, sent: dict[str, Any], job_id: UUID | None) -> tuple[bool, str]:
    """Whether the external API lists analyses for the form's address and token, and a sentence about it. What was not
    changed in the form of a job is what the job has."""
    url, key = sent.get("external_api_get_url", ""), sent.get("external_api_key", SecretStr("")).get_secret_value()
    if job_id is not None:
        job = cron_jobs.found(services.engine, job_id)
        url, key = url or job.external_api_get_url, key or services.vault.unlock(job.external_api_key)
    try:
        routes.check_field("external_api_get_url", url, services)
        routes.check_field("external_api_key", SecretStr(key), services)
        policy = RetryPolicy(attempts=1, budget=_TEST_SECONDS)
        with closing(api_of(services, ApiAccess(url, url, key, "", ""), policy)) as api:
            found = next(iter(api.unprocessed(page_size=1, seconds=0)), None)
        waits = "at least one analysis is waiting" if found else "no analysis is waiting"
    except Unfinished:
        waits = "no analysis of its first page is waiting"
    except ImgpipeError as error:
        return False, f"The connection does not work. {sentence(error.public.removeprefix('external_api_'))}"
    return True, f"The connection works: the API answered, and {waits}."


def _wrong(error: ValidationError | BadInput, sent: dict[str, Any], services: Services) -> dict[str, str]:
    """The errors by field; those of no field under "". The exception need not name every wrong field, so the others are
    checked too."""
    if isinstance(error, BadInput):
        wrong = {error.field or "": error.public}
    else:
        wrong = {str(one["loc"][0]): fault_of(one)["message"] for one in error.errors()}
    for name in sent.keys() - wrong.keys():
        try:
            routes.check_field(name, sent[name], services)
        except BadInput as fault:
            wrong[name] = fault.public
    # A message begins with its field's name in the API, and the form has a label there.
    return {name: wrong[name].removeprefix(f"{name} ").replace("`", "") for name in ("", *_LABELS) if name in wrong}


@router.post("/{job_id}/switch", response_class=Response)
def switch(services: ServicesDep, _: Acting, job_id: UUID, on: Annotated[bool, Form()]) -> Response:
    (routes.activate_cron_job if on else routes.deactivate_cron_job)(job_id, services)
    said = "Switched on." if on else "Switched off. A run in progress will finish."
    return back_to(f"/vision-reports/{job_id}", notice=said)


@router.post("/{job_id}/run", response_class=Response)
def run_now(services: ServicesDep, _: Acting, job_id: UUID) -> Response:
    routes.run_cron_job(job_id, services)
    return back_to(f"/vision-reports/{job_id}", notice="Started. Its analyses appear below.")


@router.post("/{job_id}/delete", response_class=Response)
def delete(services: ServicesDep, _: Acting, job_id: UUID) -> Response:
    routes.delete_cron_job(job_id, services)
    return back_to("/vision-reports", notice="The cron job, its key and its history are deleted.")


@router.get("/report/{batch_id}", response_class=Response)
def report(services: ServicesDep, _: Operator, batch_id: UUID) -> Response:
    """A report that our own analysis backend wrote."""
    return backend_routes.batch_report(batch_id, services)
