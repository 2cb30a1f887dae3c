"""Mounts all pages, and keeps what they share."""

from fastapi import APIRouter, FastAPI

from imgpipe_orchestration.gateway import packaged
from imgpipe_orchestration.gateway.limits import Rate
from imgpipe_orchestration.gateway.pages import (
    avatars,
    components,
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
    vision_reports,
)

_PAGES = (overview, media, listings, processing, vision_reports, avatars, failures, components)
_MORE = (identity, spending, review, selected, login, packaged)

router = APIRouter()
for _page in (*_PAGES, *_MORE):
    router.include_router(_page.router)


def install(app: FastAPI) -> None:
    """Mount the pages; call it once the app has its services."""
    app.state.watch = overview.Watch(app.state.services)
    app.state.login_rate = Rate(login.ATTEMPTS, login.WINDOW)
    app.include_router(router)
