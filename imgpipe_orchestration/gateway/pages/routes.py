"""All pages together, and what they share."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from imgpipe_orchestration.gateway import events
from imgpipe_orchestration.gateway.pages import (
    avatars,
    components,
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
from imgpipe_orchestration.gateway.pages.frame import not_a_page
from imgpipe_orchestration.gateway.session import Attempts

_PAGES = (overview, media, upload, listings, processing, vision_reports, avatars, failures, components, docs)
_DOORS = (login, static, events)

router = APIRouter()
for _page in (*_PAGES, *_DOORS):
    router.include_router(_page.router)


def install(app: FastAPI) -> None:
    """Mount the pages; call it once the app has its services."""
    app.state.watch = Watch(app.state.services)
    app.state.login_attempts = Attempts()
    app.add_exception_handler(404, not_a_page)
    app.include_router(router)
