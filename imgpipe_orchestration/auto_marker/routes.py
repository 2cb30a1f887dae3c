"""The auto-marker's routes: trigger a run, list runs, read and set a customer's toggle."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Response
from pydantic import BaseModel, ConfigDict, StrictBool

from imgpipe_orchestration.auto_marker import toggle
from imgpipe_orchestration.auto_marker.model import JOB, NO_FIGURES, partition_key
from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.web.auth import Customer, CustomerIfAny, ServicesDep, allowed, text_of

router = APIRouter(tags=["auto-marker"], dependencies=[Depends(allowed)])

UserHeader = Annotated[str, Header(alias="X-User-ID", description="Who asks; recorded.")]


@router.post("/api/jobs/trigger", status_code=202)
def trigger(
    services: ServicesDep, customer: Customer, response: Response, x_user_id: UserHeader = ""
) -> dict[str, Any]:
    """Mark the customer's pending images now. Joins what is queued or running for them already.

    A sensor takes it up within seconds; `GET /api/jobs/{job_id}` gives the result.
    """
    partition_key(customer)  # raises BadInput for an id that cannot be a partition key
    audit.note(subject=customer)
    job, joined = job_instances.create_or_join(services.engine, JOB, customer_id=customer, user_id=text_of(x_user_id))
    response.headers["Location"] = f"/api/jobs/{job.id}"
    return {**NO_FIGURES, **job_instances.shown(job), "joined": joined}


@router.get("/api/jobs")
def recent(
    services: ServicesDep, customer: CustomerIfAny, limit: Annotated[int, Query(ge=1, le=1000)] = 10
) -> dict[str, Any]:
    """The newest jobs first: the customer's own, or everybody's when no customer is named (an operator asks)."""
    found = job_instances.recent(services.engine, JOB, customer_id=customer, limit=limit)
    return {"jobs": [{**NO_FIGURES, **job_instances.shown(job)} for job in found], "count": len(found)}


class Toggle(BaseModel):
    """What can be set."""

    model_config = ConfigDict(extra="forbid")
    auto_mark_cleaned: StrictBool


@router.get("/api/customers/{customer_id:path}/image-config")
def read_toggle(services: ServicesDep, customer_id: str, asking: CustomerIfAny) -> dict[str, Any]:
    """Whether automatic marking is on. The audit says who switched it and when."""
    return toggle.read(services, _own(customer_id, asking))


@router.put("/api/customers/{customer_id:path}/image-config")
def write_toggle(
    services: ServicesDep, customer_id: str, change: Toggle, asking: CustomerIfAny, x_user_id: UserHeader = ""
) -> dict[str, Any]:
    """Turn automatic marking on or off. The audit keeps who, when, before and after."""
    customer = _own(customer_id, asking)
    toggle.write(services, customer, change.auto_mark_cleaned, by=text_of(x_user_id) or asking or "operator")
    return toggle.read(services, customer)


def _own(customer_id: str, asking: str | None) -> str:
    """The customer in the path.

    Raises:
        NotFound: a customer asks for another one.
        BadInput: it cannot be a partition key.
    """
    try:
        partition_key(customer_id)
    except BadInput as error:
        raise BadInput(error.public, field="customer_id") from error
    if asking is not None and asking != customer_id:
        raise NotFound(f"There is no customer {customer_id!r}.")
    return customer_id
