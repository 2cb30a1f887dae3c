"""Budgets, and what was spent: the REST API."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from imgpipe_orchestration.billing import budgets, spending
from imgpipe_orchestration.billing.budgets import ALERT_AT, Period
from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.web.texts import csv_of
from imgpipe_orchestration.web.values import Written
from imgpipe_orchestration.wiring.services import Services

By = Literal["day", "pipeline", "tenant", "model", "task"]

router = APIRouter(prefix="/api", tags=["billing"], dependencies=[Depends(allowed)])

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


@router.get("/budgets")
def list_budgets(services: ServicesDep) -> Budgets:
    """All budgets with what is spent in their present period."""
    with transaction(services.engine) as connection:
        found = budgets.standings(connection, services.settings.daily_budget_usd)
    return Budgets.model_validate({"budgets": found}, from_attributes=True)


@router.put("/budgets")
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


@router.delete("/budgets", status_code=204)
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


@router.get("/spending", response_model=Spending, responses=CSV)
def read_spending(
    request: Request,
    services: ServicesDep,
    first: First = None,
    to: Last = None,
    by: By = "day",
    form: Annotated[Literal["json", "csv"] | None, Query(alias="format", description="else by Accept")] = None,
) -> Spending | Response:
    """What paid calls cost, by day, pipeline, tenant, model or task."""
    found = spent(services, first, to, by)
    accept = request.headers.get("accept", "")
    as_csv = form == "csv" or (form is None and "text/csv" in accept and "json" not in accept)
    return csv_answer(found) if as_csv else found


def spent(services: Services, first: date | None, to: date | None, by: By) -> Spending:
    """What was spent from `first` (the first of the month) to `to` (today).

    Raises:
        BadInput: `to` is before `first`.
    """
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


def csv_answer(found: Spending) -> Response:
    header = [found.by, *list(SpendingLine.model_fields)[1:]]
    content = "".join(csv_of(header, (line.model_dump().values() for line in found.lines)))
    name = f"spending-{found.first}-{found.to}-{found.by}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)
