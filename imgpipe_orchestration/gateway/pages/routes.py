"""Mounts all pages, and keeps what they share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from imgpipe_orchestration.gateway import sign_in
from imgpipe_orchestration.gateway.pages import (
    avatars,
    components,
    docs,
    events,
    failures,
    identity,
    listings,
    login,
    media,
    overview,
    processing,
    review,
    selected,
    spending,
    static,
    trash,
    upload,
    vision_reports,
)
from imgpipe_orchestration.gateway.pages.figures import Watch
from imgpipe_orchestration.gateway.pages.frame import not_a_page
from imgpipe_orchestration.gateway.session import Attempts

_PAGES = (overview, media, upload, listings, processing, vision_reports, avatars, failures, components, docs)
_DOORS = (login, sign_in, static, events)

router = APIRouter()
for _page in (*_PAGES, identity, spending, review, trash, selected, *_DOORS):
    router.include_router(_page.router)


@asynccontextmanager
async def watching(app: FastAPI) -> AsyncIterator[None]:
    """Part of the app's lifespan: a thread that reads the overview's figures."""
    stop = threading.Event()
    thread = threading.Thread(target=app.state.watch.keep, args=(stop,), name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, 10)


def install(app: FastAPI) -> None:
    """Mount the pages; call it once the app has its services."""
    services = app.state.services
    app.state.watch = Watch(services, overview.drawing(services.settings))
    app.state.login_attempts = Attempts()
    for status in (404, 405):
        app.add_exception_handler(status, not_a_page)
    app.include_router(router)
