"""HTTP routes for people: all their images, and the erasure of all their data."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.operations import erasure, export
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import Allowed, ServicesDep, User, allowed
from imgpipe_orchestration.web.values import RowId
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["people"])

_ZIP: dict[int | str, dict[str, Any]] = {200: {"content": {"application/zip": {}}, "description": "Streamed"}}


class Asked(BaseModel):
    erasure_id: UUID


class Left(BaseModel):
    """What a sweep found that looks for what is left, not what the deletion believes."""

    objects: int
    rows: int


class ErasureAnswer(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    erasure_id: UUID
    user_id: int
    state: Literal["running", "done", "failed"]
    counts: dict[str, int] = Field(description="What was removed: things by kind, objects, rows.")
    verified: Left | None = Field(description="Null until the sweep has looked.")
    error: str | None
    asked_by: str
    asked_at: datetime = Field(validation_alias="created_at")
    finished_at: datetime | None


@router.get("/users/me/export", response_class=StreamingResponse, responses=_ZIP)
def export_me(user: User, services: ServicesDep) -> StreamingResponse:
    """All your images: originals under their own names, and `images.json`."""
    return _export(services, user)


@router.get(
    "/api/users/{user_id}/export",
    response_class=StreamingResponse,
    responses=_ZIP,
    dependencies=[Depends(allowed)],
)
def export_user(user_id: RowId, services: ServicesDep) -> StreamingResponse:
    """All images of a user, for an administrator."""
    return _export(services, user_id)


@router.delete("/users/me", status_code=202)
def erase_me(user: User, services: ServicesDep) -> Asked:
    """Erase all your data, for good. May be repeated: it is one erasure."""
    return Asked(erasure_id=erasure.ask(services, user, who=f"user {user}"))


@router.delete("/api/users/{user_id}", status_code=202)
def erase_user(user_id: RowId, services: ServicesDep, caller: Allowed) -> Asked:
    """Erase all data of a user, for good. May be repeated: it is one erasure."""
    return Asked(erasure_id=erasure.ask(services, user_id, who=caller.name))


@router.get("/api/erasures/{erasure_id}")
def erasure_of(erasure_id: UUID, services: ServicesDep, who: Allowed) -> ErasureAnswer:
    """How far an erasure has got, and what a sweep found left; for the user and for administrators."""
    with transaction(services.engine) as connection:
        found = erasure.find(connection, erasure_id)
    if who.user not in {None, found.user_id}:
        raise NotFound(f"There is no erasure {erasure_id}.")
    return ErasureAnswer.model_validate(found)


def _export(services: Services, user_id: int) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="images-{user_id}.zip"', "Cache-Control": "no-store"}
    return StreamingResponse(export.of_user(services, user_id), media_type="application/zip", headers=headers)
