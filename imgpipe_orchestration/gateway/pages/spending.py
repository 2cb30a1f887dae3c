"""Budgets, and what was spent: routes and the page."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.billing.budgets import ALERT_AT, Period
from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.gateway.pages.frame import Page, back_to
from imgpipe_orchestration.gateway.session import Acting, Operator
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.web.texts import csv_of
from imgpipe_orchestration.web.values import Written
from imgpipe_orchestration.wiring.services import Services

By = Literal["day", "pipeline", "tenant", "model", "task"]

api = APIRouter(prefix="/api", tags=["billing"], dependencies=[Depends(allowed)])

Scope = Annotated[
    str,
    Written(
        r"^(total|tenant:[^\x00\s]{1,200}|pipeline:(auto_marker|avatars|listings|media|vision_reports)|provider:[\w.-]{1,60})$",
        "a scope is total, tenant:ID, pipeline:NAME or provider:NAME, such as pipeline:media or provider:openai",
    ),
]


class BudgetBody(BaseModel, extra="forbid"):
    scope: Scope = Field(description="total, tenant:ID, pipeline:NAME or provider:NAME")
    period: Period = Field(description="of UTC")
    limit_usd: Decimal = Field(ge=0, lt=10_000_000, description="0 stops all paid work of the scope")
    alert_at: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        list(ALERT_AT), max_length=10, description="shares of the limit of which the alert webhook is told, once each"
    )


class BudgetAnswer(BaseModel):
    """A budget in its present period."""

    scope: str
    period: Period
    limit_usd: float
    alert_at: list[float]
    spent_usd: float
    reserved_usd: float = Field(description="likely cost of the calls under way")
    used_up: bool = Field(description="a call did not fit in any more, and waits")
    by_setting: bool = Field(description="it is DAILY_BUDGET_USD")
    ends: datetime


class Budgets(BaseModel):
    budgets: list[BudgetAnswer]


@api.get("/budgets")
def list_budgets(services: ServicesDep) -> Budgets:
    """All budgets with what is spent in their present period."""
    with transaction(services.engine) as connection:
        found = budgets.standings(connection, services.settings.daily_budget_usd)
    return Budgets.model_validate({"budgets": found}, from_attributes=True)


@api.put("/budgets")
def put_budget(services: ServicesDep, body: BudgetBody) -> BudgetAnswer:
    """Set a budget, or change it. Work that waits for it tries again within SPENDING_PAUSE_SECONDS."""
    kind, _, name = body.scope.partition(":")
    known = services.models.providers
    if kind == "provider" and name not in known:
        raise BadInput(f"There is no provider {name}: there are {', '.join(known) or 'none'}.", field="scope")
    with transaction(services.engine) as connection:
        before = budgets.of(connection, body.scope, body.period)
        audit.note(before=before, after=body.model_dump(mode="json"), subject=f"{body.scope} {body.period}")
        budgets.put(connection, body.scope, body.period, body.limit_usd, body.alert_at)
        (mine,) = (one for one in budgets.standings(connection, 0, [body.scope]) if one.period == body.period)
    return BudgetAnswer.model_validate(mine, from_attributes=True)


@api.delete("/budgets", status_code=204)
def delete_budget(services: ServicesDep, scope: Annotated[Scope, Query()], period: Annotated[Period, Query()]) -> None:
    """Remove a budget."""
    with transaction(services.engine) as connection:
        audit.note(before=budgets.of(connection, scope, period), subject=f"{scope} {period}")
        budgets.remove(connection, scope, period, services.settings.daily_budget_usd)


CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}


class SpendingLine(BaseModel):
    name: str
    bought: int
    reused: int
    unknown_cost: int = Field(description="bought calls whose price is not known; not counted by tenant")
    cost_usd: float
    saved_usd: float = Field(description="what the reused answers had cost")


class Spending(BaseModel):
    first: date = Field(serialization_alias="from")
    to: date
    by: By
    cost_usd: float
    lines: list[SpendingLine]


_Day = Annotated[date | None, BeforeValidator(lambda given: given or None)]
"""Forms send empty fields as well."""
First = Annotated[_Day, Query(alias="from", description="by default the first of the month")]
Last = Annotated[_Day, Query(description="the last day, by default today (UTC)")]


@api.get("/spending", response_model=Spending, responses=CSV)
def read_spending(
    request: Request,
    services: ServicesDep,
    first: First = None,
    to: Last = None,
    by: By = "day",
    form: Annotated[Literal["json", "csv"] | None, Query(alias="format", description="else by Accept")] = None,
) -> Spending | Response:
    """What paid calls cost, by day, pipeline, tenant, model or task."""
    found = _spending(services, first, to, by)
    accept = request.headers.get("accept", "")
    as_csv = form == "csv" or (form is None and "text/csv" in accept and "json" not in accept)
    return _as_csv(found) if as_csv else found


def _spending(services: Services, first: date | None, to: date | None, by: By) -> Spending:
    last = to or datetime.now(UTC).date()
    if first and to and first > to:
        raise BadInput(f"from is {first}, which is after {last}, the last day.", field="from")
    first = first or last.replace(day=1)
    with transaction(services.engine) as connection:
        if by == "tenant":
            found = spending.by_tenant(connection, first, last)
        else:
            found = spending.between(connection, first, last, [by])
    lines = [SpendingLine(name=str(getattr(line, by)), **line._mapping) for line in found]
    total = round(sum(line.cost_usd for line in lines), 9)
    return Spending(first=first, to=last, by=by, cost_usd=total, lines=lines)


def _as_csv(found: Spending) -> Response:
    header = [found.by, *list(SpendingLine.model_fields)[1:]]
    content = "".join(csv_of(header, (line.model_dump().values() for line in found.lines)))
    name = f"spending-{found.first}-{found.to}-{found.by}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


router = APIRouter(include_in_schema=False)

HEIGHT = 120.0
"""Height of the dearest day's bar, SVG units."""
MOST = 366
"""Days that the plot shows at most: the last ones."""
LINES = 200
"""Lines that the table has at most: the most expensive ones. By day it has all."""


@router.get("/spending", response_class=Response)
def look(page: Page, services: ServicesDep, first: First = None, to: Last = None, by: By = "task") -> Response:
    """What was spent by day, and by one more thing; the month's forecast; budgets."""
    today = datetime.now(UTC).date()
    found = _spending(services, first, to, by)
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
def export(services: ServicesDep, _: Operator, first: First = None, to: Last = None, by: By = "task") -> Response:
    """The page's CSV. The API's own route takes keys only, and a person who signed in has none."""
    return _as_csv(_spending(services, first, to, by))


@router.post("/spending/budgets", response_class=Response)
def budget_set(
    services: ServicesDep,
    _: Acting,
    scope: Annotated[Scope, Form()],
    period: Annotated[Period, Form()],
    limit: Annotated[str, Form()],
) -> Response:
    try:
        put_budget(services, BudgetBody.model_validate({"scope": scope, "period": period, "limit_usd": limit}))
    except ValidationError:
        return back_to("/spending", trouble="The limit must be a number of US dollars, such as 20 or 0.50.")
    return back_to("/spending", notice="The budget is set. Work that waits for it tries again within minutes.")


@router.post("/spending/budgets/remove", response_class=Response)
def budget_removed(
    services: ServicesDep, _: Acting, scope: Annotated[Scope, Form()], period: Annotated[Period, Form()]
) -> Response:
    delete_budget(services, scope, period)
    return back_to("/spending", notice="The budget is removed.")
