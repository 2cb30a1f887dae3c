"""`GET /health`: whether the gateway can do its work, by asking its backends. `GET /health/live`: whether it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from imgpipe_orchestration.auto_marker.model import JOB, tick_late
from imgpipe_orchestration.daemon_threads import in_daemon_thread
from imgpipe_orchestration.errors import ImgpipeError, NotMigrated
from imgpipe_orchestration.lru_cache import AsyncLruCache
from imgpipe_orchestration.media import pending
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import heartbeats, migrations
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(tags=["health"])

OK = "ok"
NOT_CONFIGURED = "not configured"
"""Not an error: a deployment without news documents has no MongoDB."""

_LAST_TICK = "last_tick"
ANSWER_SECONDS = 6
"""How long a backend may take: longer than connecting (5 s), shorter than the probes under deploy/ wait (8 s). A
frozen server accepts connections and answers nothing."""


@router.get(
    "/health",
    responses={503: {"description": "Something the gateway stands on is down", "content": {"application/json": {}}}},
)
async def health(request: Request, services: ServicesDep) -> JSONResponse:
    """200 with `status: ok` when everything that is configured answers, else 503 naming what does not.

    `last_tick` is when the auto-marker last looked for work. On FLASK_PORT, the auto-marker's own port, a tick that is
    long overdue is a 503 too. On the gateway's port it is only shown: uploads are accepted without Dagster, and a load
    balancer must not turn them away.
    """
    # Requests that come while one is being answered share its answer: this route needs no key and is the slowest.
    looks: AsyncLruCache[None, tuple[dict[str, str], bool]] = request.app.state.health
    checks, late = await looks.get(None, lambda: _looked(services), keep=lambda _: False)
    settings = services.settings
    # The port that the request arrived at. `request.url` has the one of Host, which a mapped port or a proxy changes.
    own_port = settings.flask_port != settings.gateway_port and request.scope["server"][1] == settings.flask_port
    reached = all(said in {OK, NOT_CONFIGURED} for name, said in checks.items() if name != _LAST_TICK)
    healthy = reached and not (late and own_port)
    body = {"status": OK if healthy else "down", "service": "imgpipe", "checks": checks}
    return JSONResponse(body, 200 if healthy else 503, {"Cache-Control": "no-store"})


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether this process answers requests, whatever its backends do: for liveness probes."""
    return {"status": OK}


async def _looked(services: Services) -> tuple[dict[str, str], bool]:
    """What each backend says, and the auto-marker's last tick; and whether that tick is overdue."""
    checks, late = await _asked(services), False
    if checks["mongodb"] != NOT_CONFIGURED:
        known = checks["database"] == OK
        checks[_LAST_TICK], late = await asyncio.to_thread(_last_tick, services) if known else ("unknown", False)
    return checks, late


async def _asked(services: Services) -> dict[str, str]:
    """What each backend says, all asked at once, in threads of their own: those of the shared pool may all be waiting
    for the server that does not answer."""
    elsewhere = services.settings.pending_images_database_url != services.settings.database_url
    parts = {**_PARTS, **({"pending_images": _pending_images} if elsewhere else {})}
    asked = {
        name: asyncio.wrap_future(in_daemon_thread(partial(_said, part, services), f"health-{name}"))
        for name, part in parts.items()
    }
    await asyncio.wait(asked.values(), timeout=ANSWER_SECONDS)
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


def _pending_images(services: Services) -> str:
    with transaction(services.pending_engine) as connection:
        pending.last_id(connection)
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
    """When the auto-marker's last tick was, as text, and whether the next is overdue."""
    try:
        last = heartbeats.last(services.engine, JOB)
    except ImgpipeError as error:
        return error.public, False
    if last is None:
        return "never", False
    late = tick_late(last.age, services.settings.job_interval_minutes)
    return f"{last.at.isoformat(timespec='seconds')}{', overdue' if late else ''}", late
