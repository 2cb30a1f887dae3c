"""The overview: the figures of the five pipelines."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from imgpipe_orchestration.gateway.pages import charts
from imgpipe_orchestration.gateway.pages.figures import Glance, Watch
from imgpipe_orchestration.gateway.pages.frame import PageRoute, page, part
from imgpipe_orchestration.gateway.session import Operator
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.backlog import STUCK_LIMIT

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/", response_class=Response)
def overview(request: Request, session: Operator) -> Response:
    watch: Watch = request.app.state.watch
    return page(request, "overview.html", session, shown=watch.shown())


def drawing(settings: Settings) -> Callable[[Glance], str]:
    """The function that renders figures as the part of the page that shows them."""

    def draw(glance: Glance) -> str:
        drawn = {one.about.name: (charts.bars(one.hours), charts.summary(one.hours)) for one in glance.pipelines}
        values = {"glance": glance, "charts": drawn, "height": charts.HEIGHT, "stuck_limit": STUCK_LIMIT}
        return part("figures.html", dagster=settings.dagster_url, **values)

    return draw
