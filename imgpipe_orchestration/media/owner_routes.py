"""HTTP routes for owners of images: privacy, signed URLs, and direct uploads to S3."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import AfterValidator, BaseModel, Field

from imgpipe_orchestration.errors import BadInput, Forbidden
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.media import corrections, direct_uploads, lifecycle
from imgpipe_orchestration.media.analyses import analysis_of
from imgpipe_orchestration.media.corrections import Correction
from imgpipe_orchestration.media.model import FIELDS
from imgpipe_orchestration.media.serving import signing
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, ServicesDep, User
from imgpipe_orchestration.web.names import clean_name
from imgpipe_orchestration.web.values import RowId, Written

router = APIRouter(prefix="/api/media", tags=["media"])

OF_UNKNOWN_TYPE = "application/octet-stream"
"""Also what an empty type stands for: browsers know no type of a HEIC. Commit looks at the content."""

ImageType = Annotated[
    str,
    AfterValidator(lambda given: given or OF_UNKNOWN_TYPE),
    Written(
        rf"^(image/[a-z0-9.+-]{{1,60}}|{OF_UNKNOWN_TYPE})?$",
        f"must be the type of an image, such as image/jpeg; empty or {OF_UNKNOWN_TYPE} when you do not know it",
    ),
]

WEEK = 7 * 24 * 3600
"""Longest life of a signed URL, seconds; the same as S3's limit."""


def owned(media_id: RowId, caller: Allowed, services: ServicesDep) -> MediaFile:
    """The image, for its owner's token, MEDIA_API_KEY or an operator."""
    with transaction(services.engine) as connection:
        return lifecycle.owned(connection, media_id, caller)


Owned = Annotated[MediaFile, Depends(owned)]


class Privacy(BaseModel):
    private: bool = Field(description="True: nobody sees the image without a signed URL.")


class PrivacyAnswer(Privacy):
    success: bool = True
    media_id: str


@router.put("/{media_id}/privacy")
async def set_privacy(
    request: Request, media_id: RowId, wish: Privacy, services: ServicesDep, caller: Allowed
) -> PrivacyAnswer:
    """Keep an image private, or show it to everybody. At once here, and in other gateways as soon as the database has
    told them; what browsers and CDNs have kept of a public image they keep for as long as they were told."""
    audit.note(after={"private": wish.private})
    await run_in_threadpool(lifecycle.set_private, services, media_id, caller, private=wish.private)
    request.app.state.hot.forget(media_id)  # before the answer, so that the next request sees the change
    return PrivacyAnswer(media_id=str(media_id), private=wish.private)


class CorrectionAnswer(BaseModel):
    success: bool = True
    media_id: str
    analysis: dict[str, Any]


@router.patch("/analysis/{media_id}")
def correct_analysis(media: Owned, caller: Allowed, wish: Correction, services: ServicesDep) -> CorrectionAnswer:
    """Correct the analysis: what people write wins over the models, is searched and reported, and stays through
    backfills. Null gives a field back. Owners may correct the alternative text."""
    fields = wish.given()
    if not fields:
        raise BadInput("Name at least one field to correct.")
    if caller.user is not None and set(fields) - {"alt_text"}:
        raise Forbidden("Owners may correct alt_text; the other fields are for operators.")
    audit.note(after=fields, subject=str(media.id))
    corrections.correct(services, media, fields, by=caller.name)
    return CorrectionAnswer(media_id=str(media.id), analysis=analysis_of(services, str(media.id))["analysis"])


class Signing(BaseModel):
    """What the URL is to open; a parameter that is left out may have any value."""

    seconds: float | None = Field(None, gt=0, le=WEEK, description="How long; an hour without it.")
    size: Literal["thumbnail", "small", "grid", "detail", "header", "zoom"] | None = None
    format: Format | None = None
    bg: Literal["original", "removed"] | None = None


class SignedUrl(BaseModel):
    success: bool = True
    media_id: str
    url: str
    expires_at: datetime


@router.post("/{media_id}/signed-url")
def sign_url(media: Owned, services: ServicesDep, wish: Signing | None = None) -> SignedUrl:
    """A URL that shows the image to whoever has it, until it expires."""
    fixed = (wish or Signing()).model_dump(exclude_none=True)
    seconds = fixed.pop("seconds", None)
    url, ends = signing.signed_url(services.settings, media.id, seconds=seconds, fixed=fixed)
    return SignedUrl(media_id=str(media.id), url=url, expires_at=ends)


# --- uploads that do not pass through the gateway --------------------------------------------------------------------


class Announced(BaseModel):
    """A file that is to be uploaded."""

    kind: str = Field(description="A field of the form.", json_schema_extra={"enum": list(FIELDS)})
    content_type: ImageType = Field(description="As the file will be sent; empty when unknown.")
    size: int = Field(ge=1, description="Bytes; at most UPLOAD_MAX_BYTES.")
    name: Annotated[str, AfterValidator(clean_name)] = Field("", max_length=255, description="The file's name.")
    private: bool = Field(False, description="Private from the first moment.")


class PresignedUploadAnswer(BaseModel):
    """Send the file to `url` by `method` with just these headers before `expires_at`; then commit."""

    success: bool = True
    upload_id: str
    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    expires_at: datetime


class Committed(BaseModel):
    success: bool = True
    upload_id: str
    id: int = Field(description="Of the row in pending_images, as `PATCH /users/me` answers it.")
    image_path: str
    status: Literal["pending"] = "pending"


@router.post("/uploads", status_code=201)
def announce_upload(user: User, file: Announced, services: ServicesDep) -> PresignedUploadAnswer:
    """Ask for a URL to upload a file to without passing it through the gateway."""
    made = direct_uploads.presign(services, user, **file.model_dump())
    return PresignedUploadAnswer(upload_id=made.id, url=made.url, headers=made.headers, expires_at=made.expires_at)


@router.post("/uploads/{upload_id}/commit")
def commit_upload(user: User, upload_id: Annotated[str, Path(max_length=64)], services: ServicesDep) -> Committed:
    """Say that the file is there: it is checked and accepted as `PATCH /users/me` would. May be repeated."""
    accepted = direct_uploads.commit(services, user, upload_id)
    return Committed(upload_id=upload_id, id=accepted.pending_id, image_path=accepted.image_path)
