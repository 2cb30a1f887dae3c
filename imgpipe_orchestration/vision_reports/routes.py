"""Cron jobs over REST: the contract's routes, and also PATCH and `run`."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import Connection

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.telemetry.redaction import redact
from imgpipe_orchestration.vision_reports import analyses, cron_jobs, executions
from imgpipe_orchestration.vision_reports.model import ExecutionStatus, ExecutionTrigger
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.web.idempotency import IdempotencyKey, once
from imgpipe_orchestration.web.texts import plain_text
from imgpipe_orchestration.web.values import NoNul
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["vision reports"], dependencies=[Depends(allowed)])

ADDRESSES = ("external_api_get_url", "external_api_post_url", "backend_api_url")
Url = Annotated[str, Field(min_length=1, max_length=2000)]
Redacted = Annotated[str, AfterValidator(redact)]


def _job_id(job_id: Annotated[str, Path(description="The `job_id` of a cron job.")]) -> UUID:
    try:
        return UUID(job_id)
    except ValueError:
        raise NotFound(f"No cron job {plain_text(job_id, 60)}") from None


JobId = Annotated[UUID, Depends(_job_id)]


class NewCronJob(BaseModel):
    """A cron job to create."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: NoNul = Field(min_length=1, max_length=200)
    schedule: str = Field(max_length=200, description="Five fields: minute hour day-of-month month day-of-week.")
    timezone: str = Field("UTC", max_length=100, description="IANA time zone in which the schedule is meant.")
    external_api_get_url: Url
    external_api_post_url: Url
    external_api_key: SecretStr = Field(
        min_length=1, max_length=8000, description="Bearer token of both addresses. Stored encrypted, never returned."
    )
    backend_api_url: Url | None = Field(None, description="Analysis backend; default BACKEND_API_URL, our own.")
    organization_id: NoNul = Field(min_length=1, max_length=200)
    enabled: bool = True
    urgent: bool = Field(True, description="false: reports may take a day, and their calls cost half.")


class CronJobChange(BaseModel):
    """What to change of a cron job; what is left out stays."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: NoNul | None = Field(None, min_length=1, max_length=200)
    schedule: str | None = Field(None, max_length=200)
    timezone: str | None = Field(None, max_length=100)
    external_api_get_url: Url | None = None
    external_api_post_url: Url | None = None
    external_api_key: SecretStr | None = Field(None, min_length=1, max_length=8000)
    backend_api_url: Url | None = None
    organization_id: NoNul | None = Field(None, min_length=1, max_length=200)
    enabled: bool | None = None
    urgent: bool | None = None


class Done(BaseModel):
    status: Literal["success"] = "success"
    job_id: UUID


class CronJobAnswer(Done):
    """A cron job. Its key is not part of it, and neither are secrets in the addresses' queries."""

    name: str
    schedule: str
    timezone: str
    enabled: bool
    urgent: bool
    external_api_get_url: Redacted
    external_api_post_url: Redacted
    backend_api_url: Redacted
    organization_id: str
    next_run_at: datetime | None
    last_run_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Created(Done):
    """What the contract says of a new job; GET has the rest."""

    name: str
    schedule: str
    enabled: bool


class CronJobList(BaseModel):
    status: Literal["success"] = "success"
    total: int
    jobs: list[CronJobAnswer]


class AnalysisOutcome(BaseModel):
    """What came of one analysis in an execution."""

    vision_analysis_id: str
    run_code: str
    status: Literal["running", "success", "failed"]
    batch_id: str | None
    images_total: int | None
    images_usable: int | None
    error: str | None
    started_at: datetime
    finished_at: datetime | None


class ExecutionAnswer(BaseModel):
    """One execution: `total` counts the analyses it took up; what was in flight already is not among them."""

    execution_id: UUID
    job_id: UUID
    trigger: ExecutionTrigger
    status: ExecutionStatus
    started_at: datetime
    finished_at: datetime | None
    total: int
    successful: int
    failed: int
    error: str | None
    run_id: str | None
    run_url: str | None = Field(description="The Dagster run that works, or last worked, on it.")
    analyses: list[AnalysisOutcome]


class ExecutionList(Done):
    total: int
    executions: list[ExecutionAnswer]


class Switched(Done):
    enabled: bool


class Started(Done):
    execution_id: UUID


@router.post("/cron-jobs")
def create_cron_job(job: NewCronJob, services: ServicesDep) -> Created:
    """Create a cron job. An enabled one runs at the next moment its schedule names."""
    values = {name: check_field(name, value, services) for name, value in job.model_dump().items()}
    values["backend_api_url"] = values["backend_api_url"] or services.settings.backend_api_url
    created = cron_jobs.create(services.engine, values)
    return Created(**created._asdict())


@router.get("/cron-jobs")
def list_cron_jobs(
    services: ServicesDep, enabled_only: Annotated[bool, Query(description="Leave out what is switched off.")] = False
) -> CronJobList:
    """All cron jobs, oldest first."""
    jobs = [CronJobAnswer(**job._asdict()) for job in cron_jobs.listed(services.engine, enabled_only=enabled_only)]
    return CronJobList(total=len(jobs), jobs=jobs)


@router.get("/cron-jobs/{job_id}")
def get_cron_job(job_id: JobId, services: ServicesDep) -> CronJobAnswer:
    """One cron job: its schedule, last and next run, without its key."""
    return CronJobAnswer(**cron_jobs.found(services.engine, job_id)._asdict())


@router.patch("/cron-jobs/{job_id}")
def change_cron_job(job_id: JobId, change: CronJobChange, services: ServicesDep) -> CronJobAnswer:
    """Change some of a job. A null means the same as leaving the field out; at least one field must be given."""
    given = change.model_dump(exclude_none=True)
    if not given:
        raise BadInput("Give at least one field a value other than null.")
    values = {name: check_field(name, value, services) for name, value in given.items()}
    return CronJobAnswer(**cron_jobs.change(services.engine, job_id, values)._asdict())


@router.delete("/cron-jobs/{job_id}")
def delete_cron_job(job_id: JobId, services: ServicesDep) -> Done:
    """Remove a job with its key and its history. Analyses it has in flight are withdrawn."""
    analyses.delete_job(services.engine, services.claims, job_id)
    return Done(job_id=job_id)


@router.post("/cron-jobs/{job_id}/activate")
def activate_cron_job(job_id: JobId, services: ServicesDep) -> Switched:
    """Switch a job on. It runs at the next moment its schedule names."""
    cron_jobs.change(services.engine, job_id, {"enabled": True})
    return Switched(job_id=job_id, enabled=True)


@router.post("/cron-jobs/{job_id}/deactivate")
def deactivate_cron_job(job_id: JobId, services: ServicesDep) -> Switched:
    """Switch a job off. What it has in flight goes on."""
    cron_jobs.change(services.engine, job_id, {"enabled": False})
    return Switched(job_id=job_id, enabled=False)


@router.post("/cron-jobs/{job_id}/run", status_code=202)
def run_cron_job(job_id: JobId, services: ServicesDep, idempotency_key: IdempotencyKey = None) -> Started:
    """Start an execution now, whatever the schedule says and whether or not the job is enabled."""

    def start(rows: Connection) -> Started:
        job = cron_jobs.find(rows, job_id, lock=True)
        execution = executions.start(
            rows, services.claims, ExecutionTrigger.MANUAL, cron_job_id=job.id, tenant=job.organization_id
        )
        return Started(job_id=job_id, execution_id=execution.execution_id)

    return once(services.engine, "cron-jobs/run", idempotency_key, str(job_id), Started, start)


@router.get("/cron-jobs/{job_id}/executions")
def list_executions(
    job_id: JobId, services: ServicesDep, limit: Annotated[int, Query(ge=1, le=500)] = 20
) -> ExecutionList:
    """The newest executions of a job, newest first."""
    job = cron_jobs.found(services.engine, job_id)
    rows = executions.recent(services.engine, job.id, limit=limit)
    runs = f"{services.settings.dagster_url}/runs"
    found = [ExecutionAnswer(**row, job_id=job_id, run_url=row["run_id"] and f"{runs}/{row['run_id']}") for row in rows]
    return ExecutionList(job_id=job_id, total=len(found), executions=found)


def check_field(name: str, value: Any, services: Services) -> Any:
    """One field as it is stored, the key encrypted.

    Raises:
        BadInput: naming the field.
    """
    if name == "schedule":
        return cron_jobs.check_schedule(value)
    if name == "timezone":
        return cron_jobs.check_timezone(value)
    if name in ADDRESSES and value:
        cron_jobs.check_address(name, value, production=services.settings.production)
    if name == "external_api_key":
        key = value.get_secret_value().strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise BadInput("external_api_key must be a token: ASCII characters and no spaces", field=name)
        return services.vault.lock(key)
    return value
