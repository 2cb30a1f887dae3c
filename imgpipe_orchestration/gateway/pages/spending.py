"""The page of what was spent, and of the budgets."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response

from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.billing.budgets import ALERT_AT, Period
from imgpipe_orchestration.gateway.billing_routes import Scope
from imgpipe_orchestration.gateway.pages.frame import PageRoute, back_to, page
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep

router = APIRouter(include_in_schema=False, route_class=PageRoute)

HEIGHT = 120.0
"""Height of the dearest day's bar, SVG units."""
MOST = 366
"""Days that the plot shows at most: the last ones."""


@router.get("/spending", response_class=Response)
def look(
    request: Request,
    services: ServicesDep,
    session: Operator,
    first: Annotated[str, Query(alias="from")] = "",
    to: str = "",
    by: spending.By = "task",
) -> Response:
    """What was spent by day, and by one more thing; the month's forecast; budgets."""
    today = datetime.now(UTC).date()
    last, trouble = today, ""
    begin = today.replace(day=1)
    try:
        last = date.fromisoformat(to) if to else last
        begin = date.fromisoformat(first) if first else begin
    except ValueError:
        trouble = "A day is written as 2026-11-28."
    with transaction(services.engine) as connection:
        month = spending.between(connection, today.replace(day=1) - timedelta(days=7), today, "day")
        days = {line.name: line for line in spending.between(connection, begin, last, "day")}
        lines = spending.between(connection, begin, last, by)
        limits = budgets.standings(connection, services.settings.daily_budget_usd)
    shown = [last - timedelta(days=n) for n in range(min((last - begin).days, MOST - 1), -1, -1)]
    costs = [(day, days[str(day)].cost_usd if str(day) in days else Decimal(0)) for day in shown]
    dearest = max((cost for _, cost in costs), default=Decimal(0))
    bars = [(day, cost, round(float(cost / dearest) * HEIGHT, 2) if dearest else 0) for day, cost in costs]
    by_day = {date.fromisoformat(line.name): line.cost_usd for line in month}
    values = {
        "bars": bars,
        "height": HEIGHT,
        "dearest": dearest,
        "total": sum((line.cost_usd for line in days.values()), Decimal(0)),
        "saved": sum((line.saved_usd for line in days.values()), Decimal(0)),
        "today": by_day.get(today, Decimal(0)),
        "month": sum((usd for day, usd in by_day.items() if day.month == today.month), Decimal(0)),
        "forecast": spending.forecast(by_day, today),
        "lines": lines,
        "budgets": limits,
        "chosen": {"from": begin, "to": last, "by": by},
        "groups": ("task", "pipeline", "model", "tenant", "day"),
    }
    more = {"trouble": trouble} if trouble else {}
    return page(request, "spending.html", session, status=422 if trouble else 200, **values, **more)


@router.post("/spending/budgets", response_class=Response)
def put_budget(
    services: ServicesDep,
    _: Acting,
    scope: Annotated[Scope, Form()],
    period: Annotated[Period, Form()],
    limit: Annotated[str, Form()],
) -> Response:
    """Sets a budget."""
    audit.note(after={"limit_usd": limit}, subject=f"{scope} {period}")
    try:
        usd = Decimal(limit)
    except InvalidOperation:
        usd = Decimal(-1)
    if not 0 <= usd < 10_000_000:
        return back_to("/spending", trouble="The limit must be a number of US dollars, such as 20 or 0.50.")
    with transaction(services.engine) as connection:
        budgets.put(connection, scope, period, usd, ALERT_AT)
    return back_to("/spending", notice="The budget is set. Work that waits for it tries again within minutes.")


@router.post("/spending/budgets/remove", response_class=Response)
def remove_budget(
    services: ServicesDep, _: Acting, scope: Annotated[Scope, Form()], period: Annotated[Period, Form()]
) -> Response:
    """Takes a budget away."""
    audit.note(subject=f"{scope} {period}")
    with transaction(services.engine) as connection:
        budgets.remove(connection, scope, period, services.settings.daily_budget_usd)
    return back_to("/spending", notice="The budget is gone.")
