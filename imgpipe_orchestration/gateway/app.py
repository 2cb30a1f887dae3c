"""The FastAPI app: its middleware, and the routes of all features."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version

from fastapi import APIRouter, FastAPI

from imgpipe_orchestration.auto_marker import routes as auto_marker
from imgpipe_orchestration.avatars import routes as avatars
from imgpipe_orchestration.gateway import health, metrics, openapi
from imgpipe_orchestration.gateway import identity_routes as identity
from imgpipe_orchestration.gateway import job_routes as jobs
from imgpipe_orchestration.gateway import spending_routes as spending
from imgpipe_orchestration.gateway.components import routes as components
from imgpipe_orchestration.gateway.limits import LimitRequests, Rate
from imgpipe_orchestration.gateway.middleware import Answers, Audited, Cors, Heads
from imgpipe_orchestration.gateway.pages import frame, login, overview
from imgpipe_orchestration.gateway.pages import routes as pages
from imgpipe_orchestration.listings import debug_routes as listings_debug
from imgpipe_orchestration.listings import routes as listings
from imgpipe_orchestration.media import owner_routes
from imgpipe_orchestration.media import routes as media
from imgpipe_orchestration.media.serving import routes as serving
from imgpipe_orchestration.media.serving.images import Images
from imgpipe_orchestration.operations import person_routes as people
from imgpipe_orchestration.operations import review_routes as moderation
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.vision_reports import backend_routes as vision_backend
from imgpipe_orchestration.vision_reports import routes as vision_reports
from imgpipe_orchestration.web import problems
from imgpipe_orchestration.web.request_counts import RequestCounts
from imgpipe_orchestration.wiring.services import Services

_router = APIRouter()
"""The routes of every app. Built once: FastAPI takes a quarter of a second to analyse what a router includes."""
for _routes in (
    *(auto_marker, avatars, components, health, jobs, listings, media, metrics, moderation, people, owner_routes),
    *(serving, vision_backend, vision_reports, pages, spending, identity),
):
    _router.include_router(_routes.router)


def create_app(settings: Settings) -> FastAPI:
    """The gateway over `settings`. Opens its connections on first use and closes them at shutdown."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        tracing.configure()
        services = app.state.services
        async with serving.serving(app, services):
            yield
        tracing.flush()
        services.close()

    debugging = [] if settings.production else listings_debug.router.routes
    app = FastAPI(
        title="imgpipe",
        version=version("imgpipe-orchestration"),
        summary="Uploads, listings, marking, vision reports and avatars of one image back office.",
        lifespan=lifespan,
        routes=[*_router.routes, *debugging],
        docs_url=None,  # FastAPI's own page loads its script from another host; `pages.components` serves it from here
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `Answers` and `metrics` do this here
    )
    app.state.services = Services(settings)
    app.state.health, app.state.started = None, time.monotonic()
    app.state.watch = overview.watching(app.state.services)
    app.state.login_rate = Rate(login.ATTEMPTS, login.WINDOW)
    app.state.report_rate = Rate(moderation.REPORTS_A_MINUTE)
    problems.install(app, page=frame.instead_of)
    # The middleware added last sees a request first. So refusals of `LimitRequests` get headers and are counted.
    app.add_middleware(Audited, engine=lambda: app.state.services.engine)
    app.add_middleware(Heads)
    app.add_middleware(LimitRequests, settings=settings, engine=lambda: app.state.services.engine)
    app.add_middleware(Cors, origins=settings.origins)
    counts = RequestCounts()
    app.state.requests, app.state.figures = counts, None
    app.add_middleware(Answers, counts=counts)
    app.add_middleware(Images, counts=counts)
    app.openapi = cache(partial(openapi.described, app))  # type: ignore[method-assign]  # made when it is asked for
    return app
