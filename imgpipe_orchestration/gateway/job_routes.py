"""The jobs API: start, look at and stop the jobs that people control by name; look up an on-demand run by its id.

Listing the runs and asking for one belong to the auto-marker (`GET /api/jobs`, `POST /api/jobs/trigger`).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Connection, Row

from imgpipe_orchestration.auto_marker import model as auto_marker
from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.listings import model as listings
from imgpipe_orchestration.listings import store
from imgpipe_orchestration.storage import job_definitions, job_instances
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.web.auth import CustomerIfAny, ServicesDep, allowed
from imgpipe_orchestration.web.values import NoNul

router = APIRouter(prefix="/api/jobs", tags=["jobs"], dependencies=[Depends(allowed)])


def _interval(written: str) -> str:
    try:
        job_definitions.parse_interval(written)
    except BadInput as error:
        raise ValueError(error.public) from error
    return written


class ProcessImages(BaseModel, extra="forbid"):
    """Parameters of the listings' job."""

    batch_size: int = Field(
        listings.DEFAULT_BATCH_SIZE, ge=1, le=listings.MAX_BATCH_SIZE, strict=True, description="images a claim"
    )


class JobBody(BaseModel):
    """A job's definition, as the document writes it."""

    id: Literal["process-image-queue"]
    name: NoNul = Field("Process Image Queue", min_length=1, max_length=200)
    description: NoNul = Field("Process pending images in queue", max_length=2000)
    type: Literal["process_images"]
    interval: Annotated[str, AfterValidator(_interval)] = Field("10s", description="like 10s, 2m or 1h30m")
    payload: ProcessImages = Field(default_factory=ProcessImages)


@router.post("", responses={201: {"description": "Defined for the first time", "model": dict[str, Any]}})
def start_job(services: ServicesDep, body: JobBody, response: Response) -> dict[str, Any]:
    """Define or redefine a job, and start it."""
    with transaction(services.engine) as connection:
        old, job = job_definitions.find(connection, body.id), body.model_dump()
        before = old and {name: getattr(old, name) for name in (*job, "enabled")}
        audit.note(before=before, after={**job, "enabled": True}, subject=body.id)
        new = job_definitions.put(connection, job)
        response.status_code = 201 if new else 200
        return _described(connection, job_definitions.get(connection, body.id))


@router.get("/{job_id}")
def look_at_job(services: ServicesDep, job_id: str, customer: CustomerIfAny) -> dict[str, Any]:
    """A job by its name: its state, last and next run, last result and counts. A run that was asked for, by its id;
    a customer sees only their own."""
    with transaction(services.engine) as connection:
        job = job_definitions.find(connection, job_id)
        if job is not None:
            return _described(connection, job)
    asked = job_instances.get(services.engine, job_id, customer_id=customer)
    return {**(auto_marker.NO_FIGURES if asked.job == auto_marker.JOB else {}), **job_instances.shown(asked)}


@router.delete("/{job_id}")
def stop_job(services: ServicesDep, job_id: str) -> dict[str, Any]:
    """Stop a job. Images that are uploaded meanwhile wait until it is started again."""
    audit.note(before={"enabled": True}, after={"enabled": False})
    with transaction(services.engine) as connection:
        return _described(connection, job_definitions.switch(connection, job_id, on=False))


def _described(connection: Connection, job: Row[Any]) -> dict[str, Any]:
    shown = {name: _moment(value) if isinstance(value, datetime) else value for name, value in job._asdict().items()}
    shown["last_run"], shown["last_run_finished"] = shown.pop("last_started_at"), shown.pop("last_finished_at")
    startable = store.startable_at(job)
    data = shown | {
        "state": job_definitions.state(job),
        "next_run": _moment(startable and max(startable, time_of(connection))),
        "counts": store.counts(connection),
    }
    return {"status": "success", "data": data}


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else None
