"""Our own analysis backend over HTTP, in the protocol of `partners.analysis_backend`: one imgpipe can serve another.

It works over this project's tables and bucket; runs of `vision_batches` show the images to the vision model.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel, Field
from starlette.datastructures import UploadFile

from imgpipe_orchestration.errors import BadInput, Conflict, Permanent
from imgpipe_orchestration.partners.analysis_backend import BatchOrder, BatchState
from imgpipe_orchestration.vision_reports import batches
from imgpipe_orchestration.vision_reports.model import IMAGE_BYTES
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.web.forms import form_in, name_of
from imgpipe_orchestration.web.texts import plain_text
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["analysis backend"], dependencies=[Depends(allowed)])

FILES_AT_ONCE = 20
"""Most images in one request."""
_FORM = {
    "type": "object",
    "required": ["files", "organization_id"],
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "organization_id": {"type": "string"},
    },
}


def models_of(services: Services) -> list[str]:
    """The models a batch can be analysed with, the default first."""
    models = dict.fromkeys(choice.model for choice in services.models.choices("report"))
    return list(models) or [services.settings.openai_vision_model]  # batches wait until there is one


def store(services: Services, name: str, data: bytes, organization_id: str) -> UploadedImage:
    """Store an image: its bytes first, then its row.

    Raises:
        BadImage, TooLarge: its content is not a usable image; name and declared type do not matter.
    """
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    found = sniff(data, max_bytes=IMAGE_BYTES)
    upload = UploadedImage(
        image_id=uuid4(),
        name=plain_text(name, 200) or f"image.{found.extension}",
        bytes=len(data),
        width=found.width,
        height=found.height,
        format=found.format,
    )
    key = f"images/{upload.image_id}.{found.extension}"
    services.vision_bucket.put(key, data, content_type=found.mime)
    whose = {"organization_id": organization_id, "object_key": key}
    batches.add_upload(services.engine, {**upload.model_dump(), **whose})
    return upload


class Model(BaseModel):
    id: str
    default: bool


class Models(BaseModel):
    status: Literal["success"] = "success"
    models: list[Model]


class UploadedImage(BaseModel):
    """An image that was taken. Width and height are those of the stored pixels."""

    image_id: UUID
    name: str
    bytes: int
    width: int
    height: int
    format: str


class RejectedImage(BaseModel):
    name: str
    reason: str


class Uploaded(BaseModel):
    status: Literal["success"] = "success"
    images: list[UploadedImage]
    rejected: list[RejectedImage]


class BatchAnswer(BaseModel):
    batch_id: UUID
    status: BatchState
    done: int = Field(0, description="Images that have been dealt with.")
    total: int = 0
    error: str | None = None
    report_url: str | None = Field(None, description="Where the report is, once there is one.")


@router.get("/available_models")
def available_models(services: ServicesDep) -> Models:
    """The models a batch can be analysed with."""
    return Models(models=[Model(id=name, default=not number) for number, name in enumerate(models_of(services))])


@router.post(
    "/batch-analysis/images",
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def upload_images(request: Request, services: ServicesDep) -> Uploaded:
    """Upload images, up to 20 at once. A file that is not a usable image is rejected, the others are stored."""
    async with form_in(request, files=FILES_AT_ONCE, fields=10) as form:
        organization = form.get("organization_id")
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not isinstance(organization, str) or not organization.strip():
            raise BadInput("organization_id is missing", field="organization_id")
        if not files:
            raise BadInput("files is missing: send at least one image", field="files")
        answer = Uploaded(images=[], rejected=[])
        for file in files:
            name, data = plain_text(name_of(file), 200), await file.read(IMAGE_BYTES + 1)
            try:
                answer.images.append(await run_in_threadpool(store, services, name, data, organization.strip()))
            except Permanent as error:
                answer.rejected.append(RejectedImage(name=name, reason=error.public))
        return answer


@router.post("/batch-analysis/batches", status_code=202)
def start_batch(
    order: BatchOrder,
    services: ServicesDep,
    idempotency_key: Annotated[
        str, Header(max_length=200, description="Names the order: the same one again gives the same batch.")
    ] = "",
) -> BatchAnswer:
    """Queue a batch. Poll its status; when it is `completed`, fetch its report."""
    models = models_of(services)
    if order.model and order.model not in models:
        raise BadInput(f"model {order.model!r} is not available; there is {', '.join(models)}", field="model")
    order = replace(order, model=order.model or models[0])
    batch_id, state = batches.start(services.engine, services.claims, order, idempotency_key)
    return BatchAnswer(batch_id=batch_id, status=state, total=len(order.images))


@router.get("/batch-analysis/batches/{batch_id}")
def batch_status(batch_id: UUID, services: ServicesDep, response: Response) -> BatchAnswer:
    """How far a batch has got. While it is not finished, Retry-After says when asking again makes sense."""
    batch = batches.found(services.engine, batch_id)
    if batch.status in {BatchState.QUEUED, BatchState.RUNNING}:
        response.headers["Retry-After"] = "2"
    ready = batch.status == BatchState.COMPLETED
    return BatchAnswer(**batch._asdict(), report_url=f"/batch-analysis/batches/{batch_id}/report" if ready else None)


@router.get(
    "/batch-analysis/batches/{batch_id}/report",
    response_class=Response,
    responses={200: {"content": {"text/html": {}}}, 409: {"description": "There is no report (yet)"}},
)
def batch_report(batch_id: UUID, services: ServicesDep) -> Response:
    """The report: one HTML file that needs nothing else."""
    batch = batches.found(services.engine, batch_id)
    if batch.status != BatchState.COMPLETED:
        raise Conflict(f"Batch {batch_id} has no report: it is {batch.status}")
    html = services.vision_bucket.get(batch.report_key, size=batch.report_bytes)
    headers: dict[str, Any] = {
        "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, max-age=300",
    }
    return Response(html, media_type="text/html; charset=utf-8", headers=headers)
