"""HTTP routes for owners of images: privacy, corrections, signed URLs, direct uploads to S3, and the trash."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field, ValidationError, WrapValidator

from imgpipe_orchestration.errors import BadInput, Forbidden, ImgpipeError, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.identity.model import Caller
from imgpipe_orchestration.imaging.formats import Format
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.lifecycle.zips import pictures
from imgpipe_orchestration.media import analyses, lifecycle, store, uploads
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.media.model import FIELDS
from imgpipe_orchestration.media.serving import signing
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Deletion
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, ServicesDep, User, allowed
from imgpipe_orchestration.web.texts import clean_name
from imgpipe_orchestration.web.values import MediaId, MediaToDelete, RowId, Written, no_media
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(prefix="/api/media", tags=["media"])

OF_UNKNOWN_TYPE = "application/octet-stream"
"""Also what an empty type stands for: browsers know no type of a HEIC. Commit looks at the content."""

Kind = Annotated[str, Written(f"^({'|'.join(FIELDS)})$", f"must be one of {', '.join(FIELDS)}")]
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


def owned(media_id: MediaId, caller: Allowed, services: ServicesDep) -> MediaFile:
    """The image, for its owner's token, MEDIA_API_KEY or an operator."""
    with transaction(services.engine) as connection:
        return lifecycle.owned(connection, media_id, caller)


Owned = Annotated[MediaFile, Depends(owned)]


class Privacy(BaseModel, extra="forbid"):
    private: bool = Field(description="True: the image is only shown at signed URLs.")


class PrivacyAnswer(Privacy, extra="ignore"):
    success: bool = True
    media_id: str


@router.put("/{media_id}/privacy")
async def set_privacy(
    request: Request, media: Owned, wish: Privacy, services: ServicesDep, caller: Allowed
) -> PrivacyAnswer:
    """Keep an image private, or show it to everybody. At once here, and in other gateways as soon as the database has
    told them; browsers and CDNs keep their copies of a public image until those expire."""
    audit.note(before={"private": media.private}, after={"private": wish.private})
    await run_in_threadpool(lifecycle.set_private, services, media.id, caller, private=wish.private)
    request.app.state.hot.forget(media.id)  # before the answer, so that the next request sees the change
    return PrivacyAnswer(media_id=str(media.id), private=wish.private)


class CorrectionAnswer(BaseModel):
    success: bool = True
    media_id: str
    analysis: dict[str, Any]


@router.patch("/analysis/{media_id}")
def correct_analysis(
    media: Owned, caller: Allowed, wish: analyses.Correction, services: ServicesDep
) -> CorrectionAnswer:
    """Correct the analysis: what people write wins over the models, is searched and reported, and stays through
    backfills. Null gives a field back. Owners may correct the alternative text."""
    fields = wish.given()
    if not fields:
        raise BadInput("Name at least one field to correct.")
    if caller.user is not None and set(fields) - {"alt_text"}:
        raise Forbidden("Owners may correct alt_text; the other fields are for operators.")
    analyses.correct(services, media, fields, by=caller.name)
    return CorrectionAnswer(media_id=str(media.id), analysis=analyses.analysis_of(services, str(media.id))["analysis"])


class Signing(BaseModel, extra="forbid"):
    """What the URL gives access to; parameters left out may have any value."""

    seconds: float | None = Field(None, gt=0, le=WEEK, description="How long it is valid; an hour by default.")
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


class Announced(BaseModel, extra="forbid"):
    """A file that is to be uploaded."""

    kind: Kind = Field(description="A field of the form.", json_schema_extra={"enum": list(FIELDS)})
    content_type: ImageType = Field(description="As the file will be sent; empty when unknown.")
    size: int = Field(ge=1, description="Bytes; at most UPLOAD_MAX_BYTES.")
    name: Annotated[str, AfterValidator(clean_name)] = Field("", max_length=255, description="The file's name.")
    private: bool = Field(False, description="Private from the first moment.")


class Committed(BaseModel):
    success: bool = True
    upload_id: str
    id: int = Field(description="Of the row in pending_images, as `PATCH /users/me` answers it.")
    image_path: str
    status: Literal["pending"] = "pending"


@router.post("/uploads", status_code=201)
def announce_upload(user: User, file: Announced, services: ServicesDep) -> uploads.PresignedUploadAnswer:
    """Ask for a URL to upload a file to without passing it through the gateway."""
    return uploads.presign(services, user, **file.model_dump())


@router.post("/uploads/{upload_id}/commit")
def commit_upload(user: User, upload_id: Annotated[str, Path(max_length=64)], services: ServicesDep) -> Committed:
    """Confirm that the file was sent: it is checked and accepted, as by `PATCH /users/me`. May be repeated."""
    accepted = uploads.commit(services, user, upload_id)
    return Committed(upload_id=upload_id, id=accepted.pending_id, image_path=accepted.image_path)


# --- deleting and restoring, one or many ------------------------------------------------------------------------------


MOST = 1000
"""Images of one bulk action."""


class DeletedAnswer(BaseModel):
    media_id: str
    state: Literal["trashed", "purged"]
    deleted_at: datetime
    purge_after: datetime


class RestoredAnswer(BaseModel):
    media_id: str
    state: str = Field(description="`ready`, `held` if it stays held back, `failed`, or the state of its processing.")


class Trashed(DeletedAnswer):
    user_id: int | None
    who: str
    why: str


class Trash(BaseModel):
    images: list[Trashed]
    next: int | None = Field(description="Pass it as `cursor` to get the page that follows.")


def _answer(found: Deletion) -> dict[str, Any]:
    times = {"deleted_at": found.trashed_at, "purge_after": found.purge_after}
    return {"media_id": str(found.item), "state": found.state, **times}


@router.get("", dependencies=[Depends(allowed)])
def trashed(
    services: ServicesDep,
    state: Literal["trashed"] = "trashed",
    cursor: RowId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Trash:
    """The trash, newest first."""
    with transaction(services.engine) as connection:
        found = deletions.page(connection, MEDIA.name, before=cursor, limit=limit)
    images = [Trashed(**_answer(one), user_id=one.user_id, who=one.who, why=one.why) for one in found]
    return Trash(images=images, next=found[-1].id if len(found) == limit else None)


def _anything(given: object, handler: Callable[[object], int]) -> int | str:
    """An id of ours, or a short text that is none: it has an answer like the others."""
    try:
        return handler(given)
    except ValidationError:
        if isinstance(given, str | int) and len(str(given)) <= 64:
            return str(given)
        raise


class Bulk(BaseModel, extra="forbid"):
    """What to do with many images."""

    ids: list[Annotated[RowId, WrapValidator(_anything)]] = Field(min_length=1, max_length=MOST)
    action: Literal["delete", "purge", "restore", "requeue", "private", "public", "download"]


class Done(BaseModel):
    """What became of one image: its state, or why not."""

    media_id: str
    success: bool
    state: str | None = None
    code: str | None = None
    error: str | None = None


class BulkAnswer(BaseModel):
    results: list[Done]


@router.post("/bulk", response_model=BulkAnswer, responses={200: {"content": {"application/zip": {}}}})
async def bulk(request: Request, services: ServicesDep, caller: Allowed, wanted: Bulk) -> BulkAnswer | Response:
    """Do something with up to a thousand images, with an answer for each. `download` answers with a ZIP of the
    originals."""
    ids = list(dict.fromkeys(wanted.ids))
    ours = [media_id for media_id in ids if isinstance(media_id, int)]
    if wanted.action == "download":
        named = await run_in_threadpool(originals, services, ours, caller)
        headers = {"Content-Disposition": 'attachment; filename="images.zip"', "Cache-Control": "no-store"}
        body = pictures(services.media_bucket, named)
        return StreamingResponse(body, media_type="application/zip", headers=headers)
    audit.note(action=wanted.action, after={"media": ours})
    results = await run_in_threadpool(act_on_all, services, ids, wanted.action, caller)
    for media_id in ours:
        request.app.state.hot.forget(media_id)
    return BulkAnswer(results=results)


def act_on_all(services: Services, ids: Sequence[int | str], action: str, caller: Caller) -> list[Done]:
    """Do one thing with many images; each may fail alone."""
    act = _ACTIONS[action]
    results = []
    for media_id in ids:
        try:
            if isinstance(media_id, str):
                raise no_media(media_id, to_delete=action in {"delete", "purge"})
            results.append(Done(media_id=str(media_id), success=True, state=act(services, media_id, caller)))
        except ImgpipeError as error:
            if error.report:  # a store is away, so that nothing else would go better
                raise
            results.append(Done(media_id=str(media_id), success=False, code=error.code, error=error.public))
    return results


def originals(services: Services, ids: list[int], caller: Caller) -> Iterator[tuple[str, str, int | None]]:
    """The originals of some images for a ZIP.

    Raises:
        NotFound: none of them is there.
    """
    found = []
    with transaction(services.engine) as connection:
        for media_id in ids:
            try:
                media = store.media_file(connection, media_id)
            except (NotFound, deletions.Deleted):
                continue
            if media.bulk_path and caller.user in {None, media.user_id}:
                extension = media.bulk_path.rpartition(".")[2]
                found.append((f"{media.id}.{extension}", media.bulk_path, media.file_size))
    if not found:
        raise NotFound("None of these images has an original.")
    return iter(found)


def _delete(services: Services, media_id: int, caller: Caller, *, purge: bool = False) -> Deletion:
    what = f"media/{media_id}"
    return trash.delete(services, MEDIA, what, [media_id], user=caller.user, who=caller.name, purge=purge)


def _restore(services: Services, media_id: int, caller: Caller) -> str:
    trash.restore(services, MEDIA, f"media/{media_id}", user=caller.user)
    with transaction(services.engine) as connection:
        lifecycle.owned(connection, media_id, caller)
        return MEDIA.states(connection, [media_id])[0]


def _requeue(services: Services, media_id: int, caller: Caller) -> str:
    if caller.user is not None:
        raise Forbidden("This needs the role operator.")
    if not services.claims.requeue(store.MEDIA, [media_id]):
        raise BadInput(f"Media {media_id} has not failed, or another worker has it; there is nothing to requeue.")
    return "waiting"


_ACTIONS: dict[str, Callable[[Services, int, Caller], str]] = {
    "delete": lambda services, media_id, caller: _delete(services, media_id, caller).state,
    "purge": lambda services, media_id, caller: _delete(services, media_id, caller, purge=True).state,
    "restore": _restore,
    "requeue": _requeue,
    "private": lambda services, media_id, caller: lifecycle.set_private(services, media_id, caller, private=True),
    "public": lambda services, media_id, caller: lifecycle.set_private(services, media_id, caller, private=False),
}


@router.delete("/{media_id}", status_code=202, responses={404: {"description": "Unknown, or somebody else's"}})
async def delete_image(
    media_id: MediaToDelete, request: Request, services: ServicesDep, caller: Allowed, purge: bool = False
) -> DeletedAnswer:
    """Delete an image: it can be restored for TRASH_DAYS, or with `purge=true` not at all. May be repeated."""
    found = await run_in_threadpool(_delete, services, media_id, caller, purge=purge)
    request.app.state.hot.forget(media_id)
    return DeletedAnswer(**_answer(found))


@router.delete("/pending/{image_id}", status_code=202)
async def delete_upload(
    image_id: RowId, request: Request, services: ServicesDep, caller: Allowed, purge: bool = False
) -> DeletedAnswer:
    """Delete an upload by the `id` that it was answered with, also before it is processed."""
    media_id = await run_in_threadpool(lifecycle.register_now, services, image_id, user=caller.user)
    if media_id is None:
        raise NotFound(f"There is no pending image {image_id}.")
    return await delete_image(media_id, request, services, caller, purge)


@router.post(
    "/{media_id}/restore",
    responses={404: {"description": "Unknown, or somebody else's"}, 410: {"description": "Purged"}},
)
async def restore_image(media_id: MediaId, request: Request, services: ServicesDep, caller: Allowed) -> RestoredAnswer:
    """Take an image out of the trash. It keeps its URL and nothing is bought again."""
    state = await run_in_threadpool(_restore, services, media_id, caller)
    request.app.state.hot.forget(media_id)
    return RestoredAnswer(media_id=str(media_id), state=state)
