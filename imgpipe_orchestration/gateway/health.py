"""`GET /health`: whether the gateway can do its work, asked of the things it stands on; `/health/live`: whether it
lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from imgpipe_orchestration.auto_marker.model import JOB, tick_late
from imgpipe_orchestration.errors import ImgpipeError, NotMigrated
from imgpipe_orchestration.gateway.auth import ServicesDep
from imgpipe_orchestration.media.serving.hot import Bounded
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import heartbeats, migrations
from imgpipe_orchestration.storage.rows import transaction

router = APIRouter(tags=["health"])

OK = "ok"
NOT_CONFIGURED = "not configured"
"""A deployment without news documents has no MongoDB, and lacks nothing."""

ANSWER_SECONDS = 6
"""How long a part may take: longer than a connection may (5 s), shorter than the probes under deploy/ wait (8 s). A
server that is frozen keeps its connections open and answers none."""


@router.get(
    "/health",
    responses={503: {"description": "Something the gateway stands on is down", "content": {"application/json": {}}}},
)
async def health(request: Request, services: ServicesDep) -> JSONResponse:
    """200 with `status: ok` when everything that is configured answers, else 503 naming what does not.

    `last_tick` is the auto-marker's last look at its customers. On FLASK_PORT, the auto-marker's own, a tick that is
    long overdue is a 503 too. On the gateway's port it is only told: uploads are accepted without Dagster, and a load
    balancer must not turn them away.
    """
    # Who asks while somebody else waits for the answer gets the same one: it needs no key, and costs the most of all.
    looks: Bounded[None, tuple[dict[str, str], bool]] = request.app.state.health
    checks, late = await looks.get(None, lambda: _looked(services), keep=lambda _: False)
    settings = services.settings
    # Where the request arrived. `request.url` is what its Host says, which a mapped port or a proxy changes.
    own_port = settings.flask_port != settings.gateway_port and request.scope["server"][1] == settings.flask_port
    reached = all(checks[name] in {OK, NOT_CONFIGURED} for name in _PARTS)
    healthy = reached and not (late and own_port)
    body = {"status": OK if healthy else "down", "service": "imgpipe", "checks": checks}
    return JSONResponse(body, 200 if healthy else 503, {"Cache-Control": "no-store"})


@router.get("/health/live")
async def live() -> dict[str, str]:
    """That this process answers requests, whatever it stands on: for whoever would restart it if it did not."""
    return {"status": OK}


async def _looked(services: Services) -> tuple[dict[str, str], bool]:
    """What each part and the auto-marker's last look are like, and whether that look is too long ago."""
    checks, late = await _asked(services), False
    if checks["mongodb"] != NOT_CONFIGURED:
        known = checks["database"] == OK
        checks["last_tick"], late = await asyncio.to_thread(_last_tick, services) if known else ("unknown", False)
    return checks, late


async def _asked(services: Services) -> dict[str, str]:
    """What each part says of itself, all asked at once. Threads of their own: the shared ones may all be waiting for
    the very server that does not answer."""
    pool = ThreadPoolExecutor(len(_PARTS), "health")
    loop = asyncio.get_running_loop()
    asked = {name: loop.run_in_executor(pool, _said, part, services) for name, part in _PARTS.items()}
    await asyncio.wait(asked.values(), timeout=ANSWER_SECONDS)
    pool.shutdown(wait=False)
    silent = f"has not answered for {ANSWER_SECONDS} seconds"
    return {name: answer.result() if answer.done() else silent for name, answer in asked.items()}


def _said(part: Callable[[Services], str], services: Services) -> str:
    try:
        return part(services)
    except ImgpipeError as error:
        return error.public


def _database(services: Services) -> str:
    with transaction(services.engine) as connection:
        if migrations.behind(connection):
            raise NotMigrated
    return OK


def _object_store(services: Services) -> str:
    services.media_bucket.head("health")
    return OK


def _mongodb(services: Services) -> str:
    if not services.settings.mongodb_url:
        return NOT_CONFIGURED
    services.documents.ping()
    return OK


_PARTS: dict[str, Callable[[Services], str]] = {
    "database": _database,
    "object_store": _object_store,
    "mongodb": _mongodb,
}


def _last_tick(services: Services) -> tuple[str, bool]:
    """When the auto-marker last looked, in words, and whether that is too long ago."""
    try:
        last = heartbeats.last(services.engine, JOB)
    except ImgpipeError as error:
        return error.public, False
    if last is None:
        return "never", False
    late = tick_late(last.age, services.settings.job_interval_minutes)
    return f"{last.at.isoformat(timespec='seconds')}{', overdue' if late else ''}", late
