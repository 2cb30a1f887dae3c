"""HTTP routes of budgets."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field

from imgpipe_orchestration.billing import budgets
from imgpipe_orchestration.billing.budgets import ALERT_AT, Budget, Period
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.web.values import Written

router = APIRouter(prefix="/api/budgets", tags=["billing"], dependencies=[Depends(allowed)])

Scope = Annotated[
    str,
    Written(
        r"^(total|tenant:[^\x00\s]{1,200}|pipeline:(auto_marker|avatars|listings|media|vision_reports)|provider:[\w.-]{1,60})$",
        "a scope is total, tenant:ID, pipeline:NAME or provider:NAME, such as pipeline:media or provider:openai",
    ),
]


class BudgetBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

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


def _shown(budget: Budget) -> BudgetAnswer:
    return BudgetAnswer(**{name: getattr(budget, name) for name in BudgetAnswer.model_fields})


@router.get("")
def list_budgets(services: ServicesDep) -> Budgets:
    """All budgets with what is spent in their present period."""
    with transaction(services.engine) as connection:
        found = budgets.standings(connection, services.settings.daily_budget_usd)
    return Budgets(budgets=[_shown(budget) for budget in found])


@router.put("")
def put_budget(services: ServicesDep, body: BudgetBody) -> BudgetAnswer:
    """Set a budget, or change it. Work that waits for it tries again within SPENDING_PAUSE_SECONDS."""
    audit.note(after=body.model_dump(mode="json"), subject=f"{body.scope} {body.period}")
    with transaction(services.engine) as connection:
        budgets.put(connection, body.scope, body.period, body.limit_usd, body.alert_at)
        (mine,) = (one for one in budgets.standings(connection, 0, [body.scope]) if one.period == body.period)
    return _shown(mine)


@router.delete("", status_code=204)
def delete_budget(services: ServicesDep, scope: Annotated[Scope, Query()], period: Annotated[Period, Query()]) -> None:
    """Take a budget away."""
    audit.note(subject=f"{scope} {period}")
    with transaction(services.engine) as connection:
        budgets.remove(connection, scope, period, services.settings.daily_budget_usd)
