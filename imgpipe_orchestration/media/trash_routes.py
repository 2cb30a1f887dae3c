"""HTTP routes that delete and restore images, one or many, and show the trash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from imgpipe_orchestration.errors import BadInput, Forbidden, ImgpipeError, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.identity.model import Caller
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.lifecycle.zips import pictures
from imgpipe_orchestration.media import lifecycle, store
from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Deletion
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, ServicesDep, allowed
from imgpipe_orchestration.web.queries import KNOWN_ONLY
from imgpipe_orchestration.web.values import RowId

router = APIRouter(prefix="/api/media", tags=["media"])

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


def delete(services: Services, media_id: int, caller: Caller, *, purge: bool = False) -> Deletion:
    """Delete an image.

    Raises:
        NotFound: there is no such image, or it is somebody else's.
    """
    name = lifecycle.what(media_id)
    return trash.delete(services, MEDIA, name, [media_id], user=caller.user, who=caller.name, purge=purge)


def restore(services: Services, media_id: int, caller: Caller) -> str:
    """Take an image out of the trash; returns its state.

    Raises:
        NotFound: there is no such image, or it is somebody else's.
        Purged: it is gone for good.
    """
    trash.restore(services, MEDIA, lifecycle.what(media_id), user=caller.user)
    with transaction(services.engine) as connection:
        lifecycle.owned(connection, media_id, caller)
        return MEDIA.state(connection, media_id)


@router.get("", dependencies=[Depends(allowed), *KNOWN_ONLY])
def trashed(
    services: ServicesDep,
    state: Literal["trashed"] = "trashed",
    cursor: RowId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Trash:
    """The trash, newest first."""
    with transaction(services.engine) as connection:
        found = deletions.page(connection, MEDIA.name, before=cursor, limit=limit)
    images = [Trashed(**_answer(one).model_dump(), user_id=one.user_id, who=one.who, why=one.why) for one in found]
    return Trash(images=images, next=found[-1].id if len(found) == limit else None)


class Bulk(BaseModel):
    """What to do with many images."""

    ids: list[RowId] = Field(min_length=1, max_length=MOST)
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
    if wanted.action == "download":
        named = await run_in_threadpool(originals, services, ids, caller)
        headers = {"Content-Disposition": 'attachment; filename="images.zip"', "Cache-Control": "no-store"}
        body = pictures(services.media_bucket, named)
        return StreamingResponse(body, media_type="application/zip", headers=headers)
    audit.note(action=wanted.action, after={"media": ids})
    results = await run_in_threadpool(act_on_all, services, ids, wanted.action, caller)
    for media_id in ids:
        request.app.state.hot.forget(media_id)
    return BulkAnswer(results=results)


def act_on_all(services: Services, ids: list[int], action: str, caller: Caller) -> list[Done]:
    """Do one thing with many images; each may fail alone."""
    act = _ACTIONS[action]
    results = []
    for media_id in ids:
        try:
            results.append(Done(media_id=str(media_id), success=True, state=act(services, media_id, caller)))
        except ImgpipeError as error:
            if error.report:  # a store is away, so that nothing else would go better
                raise
            code = error.code
            results.append(Done(media_id=str(media_id), success=False, code=code, error=error.public))
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


def _requeue(services: Services, media_id: int, caller: Caller) -> str:
    if caller.user is not None:
        raise Forbidden("This needs the role operator.")
    if not services.claims.requeue(store.MEDIA, [media_id]):
        raise BadInput(f"Media {media_id} has not failed; there is nothing to requeue.")
    return "waiting"


_ACTIONS: dict[str, Callable[[Services, int, Caller], str]] = {
    "delete": lambda services, media_id, caller: delete(services, media_id, caller).state,
    "purge": lambda services, media_id, caller: delete(services, media_id, caller, purge=True).state,
    "restore": restore,
    "requeue": _requeue,
    "private": lambda services, media_id, caller: lifecycle.set_private(services, media_id, caller, private=True),
    "public": lambda services, media_id, caller: lifecycle.set_private(services, media_id, caller, private=False),
}


@router.delete("/{media_id}", status_code=202, responses={404: {"description": "Unknown, or somebody else's"}})
async def delete_image(
    media_id: RowId, request: Request, services: ServicesDep, caller: Allowed, purge: bool = False
) -> DeletedAnswer:
    """Delete an image: it can be restored for TRASH_DAYS, or with `purge=true` not at all. May be repeated."""
    found = await run_in_threadpool(delete, services, media_id, caller, purge=purge)
    request.app.state.hot.forget(media_id)
    return _answer(found)


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
async def restore_image(media_id: RowId, request: Request, services: ServicesDep, caller: Allowed) -> RestoredAnswer:
    """Take an image out of the trash. It keeps its URL and nothing is bought again."""
    state = await run_in_threadpool(restore, services, media_id, caller)
    request.app.state.hot.forget(media_id)
    return RestoredAnswer(media_id=str(media_id), state=state)


def _answer(found: Deletion) -> DeletedAnswer:
    return DeletedAnswer(
        media_id=str(found.item), state=found.state, deleted_at=found.trashed_at, purge_after=found.purge_after
    )
