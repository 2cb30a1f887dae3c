"""The listings' page: upload, the queue, the newest images with their errors."""

from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, File, Form, Response, UploadFile

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.pages import filters
from imgpipe_orchestration.gateway.pages.frame import Number, Page, back_to
from imgpipe_orchestration.gateway.session import Acting
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.listings import store, uploads
from imgpipe_orchestration.listings.model import JOB_ID, MOST_IMAGES, MOST_TITLE
from imgpipe_orchestration.listings.routes import sent
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False)

PER_PAGE = 48


@router.get("/listings", response_class=Response)
def listings(page: Page, services: ServicesDep, before: Number = "") -> Response:
    with transaction(services.engine) as connection:
        images = store.latest(connection, before=int(before) if before else None, limit=PER_PAGE + 1)
        job = job_definitions.find(connection, JOB_ID)
    counts = services.claims.counts().get("listings")
    return page(
        "listings.html",
        listings=[(title, list(of)) for title, of in groupby(images[:PER_PAGE], lambda image: image.listing_title)],
        more=images[PER_PAGE - 1].id if len(images) > PER_PAGE else None,
        counts=counts,
        working=bool(counts and counts.waiting + counts.claimed and job and job.enabled),
        job=job,
        every=job_definitions.parse_interval(job.interval).total_seconds() if job else None,
        base=services.settings.listings_public_url,
        most_title=MOST_TITLE,
        most=MOST_IMAGES,
        limit=services.settings.upload_max_bytes,
    )


@router.post("/listings", response_class=Response)
def upload(
    services: ServicesDep,
    _: Acting,
    listing_title: Annotated[str, Form(max_length=MOST_TITLE)] = "",
    images: Annotated[list[UploadFile] | None, File()] = None,
) -> Response:
    most = services.settings.upload_max_bytes
    files = [sent(file, most) for file in images or [] if file.filename]
    try:
        data = uploads.upload(services, listing_title, files)["data"]
    except ImgpipeError as error:
        return back_to("/listings", trouble=filters.sentence(error.public))
    refused = [f"{one['file_name']}: {one['error']}" for one in data.get("rejected", [])]
    count = f"{len(refused)} files were refused. " if len(refused) > 1 else ""
    return back_to("/listings", notice=data["message"], trouble=count + filters.sentence("; ".join(refused)))


@router.post("/listings/job", response_class=Response)
def switch(services: ServicesDep, _: Acting, on: Annotated[bool, Form()]) -> Response:
    audit.note(before={"enabled": not on}, after={"enabled": on}, subject=JOB_ID)
    with transaction(services.engine) as connection:
        job_definitions.switch(connection, JOB_ID, on=on)
    if on:
        return back_to("/listings", notice="Started: what waits is worked on.")
    return back_to("/listings", notice="Stopped. What is accepted waits until it is started again.")
