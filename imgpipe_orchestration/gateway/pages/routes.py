"""The routes of all pages."""

from fastapi import APIRouter

from imgpipe_orchestration.gateway import static_files
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
