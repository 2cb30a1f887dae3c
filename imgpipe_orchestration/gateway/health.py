"""`GET /health`: whether the gateway can do its work, by asking its backends. `GET /health/live`: whether it runs."""

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache, partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from imgpipe_orchestration.auto_marker.model import JOB, late_after
from imgpipe_orchestration.errors import ImgpipeError, NotMigrated
from imgpipe_orchestration.media import pending
from imgpipe_orchestration.partners.daemon_threads import in_daemon_thread
from imgpipe_orchestration.storage import heartbeats, migrations
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.wiring.services import Services

router = APIRouter(tags=["health"])

OK = "ok"
NOT_CONFIGURED = "not configured"
"""Not an error: a deployment without news documents has no MongoDB."""

_TICKS = ("last_tick", "dagster_daemon")
"""What Dagster does. Uploads are accepted without it, so that it makes the gateway `degraded`, not down."""
_PROBE = "imgpipe_health"
_WRITE_SECONDS = 10.0
"""Time between two writes to the object store, or strangers could make many: this route needs no key."""
ANSWER_SECONDS = 6
"""How long a backend may take: longer than connecting (5 s), shorter than the probes under deploy/ wait (8 s). A
frozen server accepts connections and answers nothing."""


@router.get(
    "/health",
    responses={503: {"description": "Something the gateway depends on is down", "content": {"application/json": {}}}},
)
async def health(request: Request, services: ServicesDep) -> JSONResponse:
    """200 with `status: ok` when everything that is configured answers, else 503 naming what does not. An object store
    that has no room for an upload is a 503 as well.

    `last_tick` is when the auto-marker last looked for work, `dagster_daemon` when Dagster's daemon last ticked. When
    either is overdue, `status` is `degraded`, with 200: uploads are accepted without Dagster, and a load balancer must
    not turn them away. Only on FLASK_PORT, the auto-marker's own port, an overdue `last_tick` is a 503.
    """
    # Requests that come while one is being answered share its answer: this route needs no key and is the slowest.
    state = request.app.state
    if state.health is None or state.health.done():
        state.health = asyncio.create_task(_looked(services, time.monotonic() - state.started))
    checks, late = await asyncio.shield(state.health)
    settings = services.settings
    # The port that the request arrived at. `request.url` has the one of Host, which a mapped port or a proxy changes.
    own_port = settings.flask_port != settings.gateway_port and request.scope["server"][1] == settings.flask_port
    reached = all(said in {OK, NOT_CONFIGURED} for name, said in checks.items() if name not in _TICKS)
    healthy = reached and not ("last_tick" in late and own_port)
    status = "down" if not healthy else "degraded" if late else OK
    body = {"status": status, "service": "imgpipe", "checks": checks}
    return JSONResponse(body, 200 if healthy else 503, {"Cache-Control": "no-store"})


@router.get("/health/live")
async def live() -> dict[str, str]:
    """Whether this process answers requests, whatever its backends do: for liveness probes."""
    return {"status": OK}


async def _looked(services: Services, up: float) -> tuple[dict[str, str], set[str]]:
    """What each backend says, and when Dagster last ticked; with the names of the ticks that are overdue.

    Args:
        up: how long this process has run, in seconds: the time without a tick, if there never was one.
    """
    checks, late = await _asked(services), set[str]()
    ticks = {"dagster_daemon": (heartbeats.DAEMON, heartbeats.DAEMON_SECONDS)}
    if checks["mongodb"] != NOT_CONFIGURED:
        ticks["last_tick"] = (JOB, late_after(services.settings.job_interval_minutes))
    for name, (beat, most) in ticks.items():
        if checks["database"] != OK:
            checks[name] = "unknown"
            continue
        last = await asyncio.to_thread(heartbeats.last, services.engine, beat)
        checks[name] = last.at.isoformat(timespec="seconds") if last else "never"
        if (last.age if last else up) > most:
            late.add(name)
            checks[name] += ", overdue"
    return checks, late


async def _asked(services: Services) -> dict[str, str]:
    """What each backend says, all asked at once, in threads of their own: those of the shared pool may all be waiting
    for the server that does not answer."""
    settings = services.settings
    parts: dict[str, Callable[[Services], object]] = {"database": _database, "object_store": _object_store}
    if settings.mongodb_url:
        parts["mongodb"] = lambda of: of.documents.ping()
    if settings.pending_images_database_url != settings.database_url:
        parts["pending_images"] = _pending_images
    asked = {
        name: asyncio.wrap_future(in_daemon_thread(partial(_said, part, services), f"health-{name}"))
        for name, part in parts.items()
    }
    await asyncio.wait(asked.values(), timeout=ANSWER_SECONDS)
    silent = f"has not answered for {ANSWER_SECONDS} seconds"
    said = {name: answer.result() if answer.done() else silent for name, answer in asked.items()}
    return {"mongodb": NOT_CONFIGURED, **said}


def _said(part: Callable[[Services], object], services: Services) -> str:
    try:
        part(services)
    except ImgpipeError as error:
        return error.public
    return OK


def _database(services: Services) -> None:
    with transaction(services.engine) as connection:
        if migrations.behind(connection):
            raise NotMigrated


def _pending_images(services: Services) -> None:
    with transaction(services.pending_engine) as connection:
        pending.last_id(connection)


def _object_store(services: Services) -> None:
    services.media_bucket.head("health")
    services.objects.check_room(services.settings.upload_max_bytes)
    _write(services, int(time.monotonic() / _WRITE_SECONDS))


@lru_cache(maxsize=1)
def _write(services: Services, _: int) -> None:
    """Write an object, because a full store still answers whoever reads. An error is not remembered."""
    services.media_bucket.put(_PROBE, b"x", content_type="text/plain")
    services.media_bucket.delete(_PROBE)
