"""Server-sent events: the overview's figures as they change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.gateway.pages import figures
from imgpipe_orchestration.gateway.pages.frame import PageRoute
from imgpipe_orchestration.gateway.session import Operator

router = APIRouter(include_in_schema=False, route_class=PageRoute)

INTERVAL = 1.5
"""Seconds between two events."""
LONGEST = 600.0
"""Seconds after which a stream ends. The browser then opens another one, for which the session is checked again."""


@router.get("/events")
def events(request: Request, _: Operator) -> StreamingResponse:
    """Event `figures`: when the figures were read, with their HTML when that has changed. Event `away`: they cannot be
    read at the moment."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(request), media_type="text/event-stream", headers=headers)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    watch: figures.Watch = request.app.state.watch
    stopping = getattr(request.app.state, "stopping", lambda: False)
    told = ""
    yield b"retry: 2000\n\n"
    for _ in range(int(LONGEST / INTERVAL)):
        try:
            shown = await run_in_threadpool(watch.shown)
            news = {} if shown.figures == told else {"figures": shown.figures}
            told = shown.figures
            yield _event("figures", {"at": shown.at, **news})
        except ImgpipeError as error:
            yield _event("away", error.public)
        if stopping() or await request.is_disconnected():
            return
        await asyncio.sleep(INTERVAL)


def _event(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
