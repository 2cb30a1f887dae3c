"""The overview: the figures of the five pipelines, today's spending, pauses, the latest failures; live."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.pages.figures import look
from imgpipe_orchestration.gateway.pages.frame import PageRoute, page, part
from imgpipe_orchestration.gateway.session import Operator
from imgpipe_orchestration.services import Services

router = APIRouter(include_in_schema=False, route_class=PageRoute)

FRESH = 1.0
"""Seconds within which all viewers share one reading of the database."""
INTERVAL = 1.5
"""Seconds between two events."""
LONGEST = 600.0
"""Seconds after which a stream ends. The browser then opens another one, for which the session is checked again."""


class Watch:
    """Reads and renders the figures at most once every FRESH seconds, however many people watch."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._last = {"at": "", "figures": ""}

    def shown(self) -> dict[str, str]:
        """When the figures were read (`09:41:07 UTC`), and the HTML of the part of the page that shows them; at most
        FRESH seconds old.

        Raises:
            BackendUnavailable: the database is away.
        """
        with self._lock:
            if time.monotonic() - self._read_at > FRESH:
                glance = look(self._services)
                drawn = part("figures.html", glance=glance, dagster=self._services.settings.dagster_url)
                self._last = {"at": f"{glance['now']:%H:%M:%S UTC}", "figures": drawn}
                self._read_at = time.monotonic()  # the end of the look, so that those who waited use it too
            return self._last


@router.get("/", response_class=Response)
def overview(request: Request, session: Operator) -> Response:
    watch: Watch = request.app.state.watch
    return page(request, "overview.html", session, shown=watch.shown())


@router.get("/events")
def events(request: Request, _: Operator) -> StreamingResponse:
    """Event `figures`: when the figures were read, with their HTML when that has changed. Event `away`: they cannot be
    read at the moment."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request), media_type="text/event-stream", headers=headers)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    watch: Watch = request.app.state.watch
    stopping = getattr(request.app.state, "stopping", lambda: False)
    told = ""
    yield b"retry: 2000\n\n"
    for _ in range(int(LONGEST / INTERVAL)):
        try:
            shown = await run_in_threadpool(watch.shown)
            yield _event("figures", {name: text for name, text in shown.items() if text != told})
            told = shown["figures"]
        except ImgpipeError as error:
            yield _event("away", error.public)
        if stopping() or await request.is_disconnected():
            return
        await asyncio.sleep(INTERVAL)


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
