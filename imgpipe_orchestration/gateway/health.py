"""`GET /health`: whether the gateway can do its work, asked of the things it stands on."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from sqlalchemy import text

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.auth import Backends
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

router = APIRouter(tags=["health"])


@router.get("/health", responses={503: {"description": "Something the gateway stands on is down"}})
def health(backends: Backends) -> JSONResponse:
    """200 with `status: ok` when database and object store answer, else 503 naming what does not."""
    checks = {"database": _database(backends), "object_store": _object_store(backends)}
    healthy = all(answer == "ok" for answer in checks.values())
    body = {"status": "ok" if healthy else "down", "service": "imgpipe", "checks": checks}
    return JSONResponse(body, 200 if healthy else 503, {"Cache-Control": "no-store"})


def _database(backends: Services) -> str:
    try:
        with transaction(backends.engine) as connection:
            connection.execute(text("select 1"))
    except ImgpipeError as error:
        return error.public
    return "ok"


def _object_store(backends: Services) -> str:
    try:
        backends.media_bucket.head("health")
    except ImgpipeError as error:
        return error.public
    return "ok"
