"""The auto-marker's page: each customer's toggle, pending documents and runs; run now."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Response
from sqlalchemy import text

from imgpipe_orchestration.auto_marker import toggle
from imgpipe_orchestration.auto_marker.model import JOB, LONGEST_KEY, UnusableToggle, partition_key
from imgpipe_orchestration.auto_marker.runs import NOBODY
from imgpipe_orchestration.auto_marker.store import ImageConfigs, News
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.gateway.pages.frame import Page, back_to
from imgpipe_orchestration.gateway.session import Acting
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(include_in_schema=False)

SHOWN = 200
"""Customers in the table; others are found by their id."""
RECENT = 15
Id = Annotated[str, Query(min_length=1, max_length=LONGEST_KEY)]
"""In the query also for forms, because browsers change line breaks in form fields and an id may contain some."""


@router.get("/processing", response_class=Response)
def processing(
    page: Page, services: ServicesDep, customer: Annotated[str, Query(max_length=LONGEST_KEY)] = ""
) -> Response:
    """The customers with pending or recently marked documents or switched off; the chosen one in detail."""
    away, one = "", None
    known = True
    customers: list[dict[str, Any]] = []
    if not services.settings.mongodb_url:
        away = "No MongoDB is configured: set MONGODB_URL to have news documents marked."
    else:
        try:
            customers = _customers(services)
            if customer:
                partition_key(customer)
                one = toggle.read(services, customer)
                known = bool(ImageConfigs(services.documents).of(customer)) or News(services.documents).any_of(customer)
        except BackendUnavailable as error:
            away = error.public
        except UnusableToggle as error:
            one = {"customer_id": customer, "auto_mark_cleaned": None, "why": error.public}
    recent = job_instances.recent(services.engine, JOB, customer_id=customer or None, limit=RECENT)
    return page(
        "processing.html",
        customers=customers[:SHOWN],
        hidden=max(0, len(customers) - SHOWN),
        one=one,
        known=known,
        chosen=customer,
        recent=recent,
        working=any(job.finished_at is None for job in recent),
        away=away,
        minutes=services.settings.job_interval_minutes,
    )


@router.post("/processing/toggle", response_class=Response)
def switch(services: ServicesDep, session: Acting, customer: Id, on: Annotated[bool, Form()]) -> Response:
    partition_key(customer)
    toggle.write(services, customer, on, by=session.caller.name)
    said = "Automatic marking is on." if on else "Automatic marking is off: pending images wait for a person."
    return back_to("/processing", customer=customer, notice=said)


@router.post("/processing/run", response_class=Response)
def run_now(services: ServicesDep, session: Acting, customer: Id) -> Response:
    partition_key(customer)
    audit.note(subject=customer)
    who = session.caller.name
    _job, joined = job_instances.create_or_join(services.engine, JOB, customer_id=customer, user_id=who)
    said = "A run for this customer is under way already." if joined else "Asked for; it starts within seconds."
    return back_to("/processing", customer=customer, notice=said)


def _customers(services: Services) -> list[dict[str, Any]]:
    """Customers with their figures, those with the most pending documents first."""
    off = set(ImageConfigs(services.documents).opted_out())
    pending = News(services.documents).pending_by_customer(opted_out=())
    with transaction(services.engine) as connection:
        marked = {row.customer_id: row for row in connection.execute(_MARKED, {"job": JOB, "nobody": NOBODY})}
    names = {name for name in (*pending, *off, *marked) if name}
    rows = [
        {
            "id": name,
            "on": name not in off,
            "pending": pending[name],
            "marked": marked[name].marked if name in marked else 0,
            "failed": marked[name].failed if name in marked else 0,
            "last": marked[name].last if name in marked else None,
        }
        for name in names
    ]
    return sorted(rows, key=lambda row: (-row["pending"], row["id"]))


# Failures are those of the newest job: a document that cannot be marked fails in every run and would count each time.
_MARKED = text("""
    select customer_id, max(finished_at) as last,
        cast(sum(cast(coalesce(result ->> 'images_marked', '0') as bigint)) as bigint) as marked,
        (array_agg(cast(coalesce(result ->> 'images_failed', '0') as bigint) order by finished_at desc))[1] as failed
    from job_instances
    where job = :job and status in ('completed', 'failed') and finished_at >= now() - interval '7 days'
        and result ->> 'note' is distinct from :nobody and customer_id <> ''
    group by customer_id
""")
