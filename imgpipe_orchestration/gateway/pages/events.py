"""Server-sent events: the overview's figures, whenever they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.pages import figures
from imgpipe_orchestration.gateway.pages.frame import PageRoute
from imgpipe_orchestration.gateway.session import Operator

router = APIRouter(include_in_schema=False, route_class=PageRoute)

INTERVAL = 1.5
"""Seconds between two looks."""
LONGEST = 600.0
"""Seconds after which a stream ends; the browser opens the next one, and a session that has ended gets none."""


@router.get("/events")
def events(request: Request, _: Operator) -> StreamingResponse:
    """The overview's figures as they change; `away` when they cannot be had at the moment."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request), media_type="text/event-stream", headers=headers)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    watch: figures.Watch = request.app.state.watch
    stopping = getattr(request.app.state, "stopping", lambda: False)
    last: tuple[str, Any] | None = None
    yield b"retry: 2000\n\n"
    for _ in range(int(LONGEST / INTERVAL)):
        try:
            glance = await run_in_threadpool(watch.glance)
            now: tuple[str, Any] = "figures", figures.values(glance)
        except ImgpipeError as error:
            now = "away", error.public
        # The clock alone is no news; a comment keeps proxies from closing a silent line.
        if _news(now) != _news(last):
            last = now
            yield f"event: {now[0]}\ndata: {json.dumps(now[1])}\n\n".encode()
        else:
            yield b":\n\n"
        if stopping() or await request.is_disconnected():
            return
        await asyncio.sleep(INTERVAL)


def _news(event: tuple[str, Any] | None) -> Any:
    if event is None or event[0] != "figures":
        return event
    words = {name: value for name, value in event[1]["words"].items() if name != "at" and not name.endswith(".oldest")}
    return {**event[1], "words": words}
