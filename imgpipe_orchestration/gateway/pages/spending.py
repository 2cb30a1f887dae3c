"""The page of budgets and of what was spent."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Form, Response
from pydantic import ValidationError

from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.billing.budgets import Period
from imgpipe_orchestration.gateway import spending_routes as api
from imgpipe_orchestration.gateway.pages.frame import Page, back_to
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False)

HEIGHT = 120.0
"""Height of the dearest day's bar, SVG units."""
MOST = 366
"""Days that the plot shows at most: the last ones."""
LINES = 200
"""Lines that the table has at most: the most expensive ones. By day it has all."""


@router.get("/spending", response_class=Response)
def look(
    page: Page, services: ServicesDep, first: api.First = None, to: api.Last = None, by: api.By = "task"
) -> Response:
    """What was spent by day, and by one more thing; the month's forecast; budgets."""
    today = datetime.now(UTC).date()
    found = api.spent(services, first, to, by)
    begin, last, lines = found.first, found.to, found.lines
    with transaction(services.engine) as connection:
        month = spending.between(connection, today.replace(day=1) - timedelta(days=7), today, ["day"])
        days = {line.day: line for line in spending.between(connection, begin, last, ["day"])}
        limits = budgets.standings(connection, services.settings.daily_budget_usd)
    shown = [last - timedelta(days=n) for n in range(min((last - begin).days, MOST - 1), -1, -1)]
    costs = [(day, days[day].cost_usd if day in days else Decimal(0)) for day in shown]
    dearest = max((cost for _, cost in costs), default=Decimal(0))
    bars = [(day, cost, round(float(cost / dearest) * HEIGHT, 2) if dearest else 0) for day, cost in costs]
    by_day = {line.day: line.cost_usd for line in month}
    return page(
        "spending.html",
        bars=bars,
        height=HEIGHT,
        dearest=dearest,
        total=sum((line.cost_usd for line in days.values()), Decimal(0)),
        saved=sum((line.saved_usd for line in days.values()), Decimal(0)),
        today=by_day.get(today, Decimal(0)),
        month=sum((usd for day, usd in by_day.items() if day.month == today.month), Decimal(0)),
        forecast=spending.forecast(by_day, today),
        lines=lines if by == "day" else lines[:LINES],
        more=0 if by == "day" else max(0, len(lines) - LINES),
        budgets=limits,
        chosen={"from": begin, "to": last, "by": by},
        groups=("task", "pipeline", "model", "tenant", "day"),
    )


@router.get("/spending/export", response_class=Response)
def export(
    services: ServicesDep, _: Operator, first: api.First = None, to: api.Last = None, by: api.By = "task"
) -> Response:
    """The page's CSV. The API's own route takes keys only, and a person who signed in has none."""
    return api.csv_answer(api.spent(services, first, to, by))


@router.post("/spending/budgets", response_class=Response)
def budget_set(
    services: ServicesDep,
    _: Acting,
    scope: Annotated[api.Scope, Form()],
    period: Annotated[Period, Form()],
    limit: Annotated[str, Form()],
) -> Response:
    try:
        api.put_budget(services, api.BudgetBody.model_validate({"scope": scope, "period": period, "limit_usd": limit}))
    except ValidationError:
        return back_to("/spending", trouble="The limit must be a number of US dollars, such as 20 or 0.50.")
    return back_to("/spending", notice="The budget is set. Work that waits for it tries again within minutes.")


@router.post("/spending/budgets/remove", response_class=Response)
def budget_removed(
    services: ServicesDep, _: Acting, scope: Annotated[api.Scope, Form()], period: Annotated[Period, Form()]
) -> Response:
    api.delete_budget(services, scope, period)
    return back_to("/spending", notice="The budget is removed.")
