"""The routes of all pages, and what the pages share."""

from fastapi import APIRouter, FastAPI

from imgpipe_orchestration.gateway import static_files
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

router = APIRouter()
for _page in (*_PAGES, identity, spending, review, selected, login, static_files):
    router.include_router(_page.router)


def install(app: FastAPI) -> None:
    """Give the app what the pages keep; call it once the app has its services."""
    app.state.watch = overview.Watch(app.state.services)
    app.state.login_rate = Rate(login.ATTEMPTS, login.WINDOW)
