"""The listings' routes: the upload, and deletion. `serving` has the URLs that an upload returns."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.datastructures import UploadFile

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.identity.model import Caller
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.listings import lifecycle, serving, uploads
from imgpipe_orchestration.listings.lifecycle import LISTINGS
from imgpipe_orchestration.listings.model import MOST_TITLE
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Purged
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, Credentials, ServicesDep, allowed
from imgpipe_orchestration.web.forms import form_in, name_of
from imgpipe_orchestration.web.idempotency import IdempotencyKey
from imgpipe_orchestration.web.problems import problem
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["listings"])

TITLE = "listing_title"
_MOST_PARTS = 1000


async def listing_of(request: Request) -> AsyncIterator[tuple[str, list[UploadFile]]]:
    """The title, and the files under any field names, because the specification names none; other texts are ignored. A
    file field without a chosen file comes as a part without name and bytes, or as an empty text.

    Raises:
        UnreadableForm: broken, or of too many parts.
        BadInput: the title is a file or too long.
    """
    async with form_in(request, files=_MOST_PARTS, fields=_MOST_PARTS) as form:
        parts = [part for _, part in form.multi_items()]
        files = [part for part in parts if isinstance(part, UploadFile) and (part.filename or part.size)]
        title = form.get(TITLE, "")
        if not isinstance(title, str) or len(title) > MOST_TITLE:
            raise BadInput(f"`{TITLE}` is a text of at most {MOST_TITLE:,} characters.", field=TITLE)
        yield title, files


async def uploader(request: Request, credentials: Credentials, services: ServicesDep) -> int | None:
    """The user of the token; None without a token, which only development accepts. A wrong token is always refused."""
    if credentials is None and not services.settings.production:
        return None
    return allowed(request, credentials, services).user


@router.post(
    "/api/upload/listing_image",
    responses={
        400: {"description": "A body that cannot be read"},
        413: {"description": "A file, or their number, is past the limit"},
        415: {"description": "No file is an image we can use; `rejected` names each"},
        422: {"description": "No file was sent, or the Idempotency-Key belongs to another request"},
        503: {"description": "Nothing was accepted; try again"},
    },
    openapi_extra={
        "requestBody": {
            "content": {
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["images"],
                        "properties": {
                            TITLE: {"type": "string", "default": "", "maxLength": MOST_TITLE},
                            "images": {
                                "type": "array",
                                "items": {"type": "string", "format": "binary"},
                                "description": "one or many images; the name of the field does not matter",
                            },
                        },
                        "additionalProperties": {"type": "string"},
                    }
                }
            },
            "required": True,
        }
    },
)
def upload_listing_image(
    services: ServicesDep,
    user: Annotated[int | None, Depends(uploader)],
    listing: Annotated[tuple[str, list[UploadFile]], Depends(listing_of)],
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Queue images and answer with their final URLs, which are valid at once."""
    most = services.settings.upload_max_bytes
    title, files = listing
    images = [sent(one, most) for one in files]
    try:
        answer = uploads.upload(services, title, images, user_id=user, idempotency_key=idempotency_key)
    except uploads.NothingUsable as nothing:
        first = nothing.rejected[0].error
        rejected: list[dict[str, Any]] = [dict(one) for one in uploads.reasons(nothing.rejected)]
        return problem(first.status, first.title, nothing.public, code=first.code, rejected=rejected)
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


def sent(file: UploadFile, most: int) -> uploads.Sent:
    """The file; one of more than `most` bytes is not read, because it is refused by its size."""
    size = file.size or 0

    def read() -> bytes:
        file.file.seek(0)
        return b"" if size > most else file.file.read()

    return uploads.Sent(name_of(file) or "unnamed", read, size)


class DeletedImage(BaseModel):
    id: str
    state: Literal["trashed", "purged"]
    deleted_at: datetime
    purge_after: datetime


class RestoredImage(BaseModel):
    id: str
    state: Literal["ready", "held", "failed"]


class DeletedImages(BaseModel):
    images: list[DeletedImage]


@router.delete("/api/listings/{listing_id}/images", status_code=202)
def delete_listing(listing_id: UUID, services: ServicesDep, who: Allowed, purge: bool = False) -> DeletedImages:
    """Delete the images of one upload (`listing_id` of its answer)."""
    return _delete(services, who, purge=purge, listing=listing_id)


@router.delete("/api/listings/images/{image_id}", status_code=202)
def delete_image(image_id: UUID, services: ServicesDep, who: Allowed, purge: bool = False) -> DeletedImages:
    """Delete one image (`id` of the upload's answer): its URL answers 410 from then on."""
    return _delete(services, who, purge=purge, image=image_id)


@router.post("/api/listings/images/{image_id}/restore", responses={410: {"description": "Purged"}})
def restore_image(image_id: UUID, services: ServicesDep, who: Allowed) -> RestoredImage:
    """Take an image out of the trash, as it was."""
    with transaction(services.engine) as connection:
        ids = lifecycle.find(connection, who.user, image=image_id)
        if not ids and deletions.was_at(connection, services.settings.digest_keys, str(image_id), user=who.user):
            raise Purged("It was deleted for good, and cannot be restored.")
    if not ids:
        raise NotFound(f"There is no listing image {image_id}.")
    (number,) = ids
    trash.restore(services, LISTINGS, f"listings/{number}", user=who.user)
    with transaction(services.engine) as connection:
        return RestoredImage.model_validate({"id": str(image_id), "state": LISTINGS.states(connection, [number])[0]})


def _delete(services: Services, who: Caller, *, purge: bool, **wanted: UUID) -> DeletedImages:
    with transaction(services.engine) as connection:
        names = lifecycle.find(connection, who.user, **wanted)
    if not names:
        raise NotFound("There is no such listing, or image of one.")
    images = []
    for number, name in names.items():
        gone = trash.delete(
            services, LISTINGS, f"listings/{number}", [number], user=who.user, who=who.name, purge=purge
        )
        images.append(DeletedImage(id=name, state=gone.state, deleted_at=gone.trashed_at, purge_after=gone.purge_after))
    return DeletedImages(images=images)


router.include_router(serving.router)
