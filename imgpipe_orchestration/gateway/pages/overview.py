"""The first page: five pipelines at a glance."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.gateway.auth import ServicesDep
from imgpipe_orchestration.gateway.pages import charts
from imgpipe_orchestration.gateway.pages.figures import Watch
from imgpipe_orchestration.gateway.pages.frame import PageRoute, page
from imgpipe_orchestration.gateway.pages.subjects import subjects
from imgpipe_orchestration.gateway.session import Operator
from imgpipe_orchestration.storage.backlog import STUCK_LIMIT
from imgpipe_orchestration.storage.rows import transaction

router = APIRouter(include_in_schema=False, route_class=PageRoute)

LATEST = 5
"""Failures named on the overview."""


@router.get("/", response_class=Response)
def overview(request: Request, services: ServicesDep, session: Operator) -> Response:
    watch: Watch = request.app.state.watch
    glance = watch.glance()
    drawn = {one.about.name: (charts.bars(one.hours), charts.summary(one.hours)) for one in glance.pipelines}
    latest = services.claims.failures(limit=LATEST)
    with transaction(services.engine) as connection:
        named = subjects(connection, [(letter.queue, letter.item_id) for letter in latest])
    return page(
        request,
        "overview.html",
        session,
        glance=glance,
        charts=drawn,
        height=charts.HEIGHT,
        stuck_limit=STUCK_LIMIT,
        latest=latest,
        subjects=named,
    )
