"""All pages together, and what they share."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from imgpipe_orchestration.gateway import events
from imgpipe_orchestration.gateway.pages import (
    avatars,
    docs,
    failures,
    listings,
    login,
    media,
    overview,
    processing,
    static,
    upload,
    vision_reports,
)
from imgpipe_orchestration.gateway.pages.figures import Watch
from imgpipe_orchestration.gateway.session import Attempts

_PAGES = (overview, media, upload, listings, processing, vision_reports, avatars, failures, docs, login, static, events)

router = APIRouter()
for _page in _PAGES:
    router.include_router(_page.router)


def install(app: FastAPI) -> None:
    """Mount the pages; call it once the app has its services."""
    app.state.watch = Watch(app.state.services)
    app.state.login_attempts = Attempts()
    app.include_router(router)
