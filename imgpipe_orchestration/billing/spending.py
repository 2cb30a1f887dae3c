"""Spending by day, pipeline, tenant, provider or model, from the journal of paid calls.

Calls of unknown price are counted separately (`unknown_cost`), so that no sum looks complete when it isn't. Stand-ins'
answers cost what the real provider would have charged; `standin` counts them.
"""

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.partners.models import Choice

_Group = Literal["pipeline", "provider", "model"]

_FIGURES = ", ".join(
    f"cast(sum({name}) as {kind}) as {name}"
    for kind, names in {
        "bigint": "bought reused failed lost standin unknown_cost input_tokens output_tokens",
        "numeric": "cost_usd",
        "double precision": "seconds",
    }.items()
    for name in names.split()
)


def today(connection: Connection, *, by: Sequence[_Group]) -> Sequence[Row[Any]]:
    """Totals of all uses since midnight UTC, by some columns or (none) as one line; the most expensive line first. A
    column that was not grouped by is empty. Seconds are summed over the bought calls. An answer that was charged and is
    of no use counts as bought and as failed."""
    columns = ", ".join(name if name in by else f"'' as {name}" for name in get_args(_Group))
    groups = f"group by {', '.join(by)}" if by else "having count(*) > 0"
    statement = f"""
        select {columns}, {_FIGURES} from spending_days where day = (now() at time zone 'UTC')::date {groups}
        order by cost_usd desc, bought desc
    """
    return connection.execute(text(statement)).all()


def this_month(connection: Connection) -> Decimal:
    """US dollars since the first of the month (UTC)."""
    first = "date_trunc('month', now() at time zone 'UTC')::date"
    spent = connection.scalar(text(f"select sum(cost_usd) from spending_days where day >= {first}"))
    return Decimal(spent or 0)


By = Literal["day", "pipeline", "tenant", "model", "task"]

_TASKS = {
    ("media", "vision"): "describe",
    ("media", "annotate"): "labels",
    ("media", "embedding"): "embed",
    ("vision_reports", "responses"): "report",
    ("avatars", "personas"): "persona",
    ("avatars", "prompt"): "prompt",
    ("avatars", "images"): "draw",
    ("avatars", "edits"): "edit",
}
"""What the calls of (pipeline, operation) are for; others go by the name of their operation."""

_TASK = "case "
_TASK += " ".join(f"when (pipeline, operation) = {key} then '{task}'" for key, task in _TASKS.items())
_TASK += " when operation = 'moderation' then 'moderate' else operation end"


@dataclass(frozen=True, slots=True)
class Line:
    """What was spent on one day, pipeline, tenant, model or task. `saved_usd` is what reused answers had cost."""

    name: str
    bought: int
    reused: int
    unknown_cost: int
    cost_usd: Decimal
    saved_usd: Decimal


def between(connection: Connection, first: date, last: date, by: By) -> list[Line]:
    """What was spent from the first to the last day (UTC, both included): days in order, else the dearest first. Calls
    of unknown cost are not counted by tenant."""
    table, unknown = ("spending_tenants", "0") if by == "tenant" else ("spending_days", "sum(unknown_cost)")
    name = {"day": "day::text", "task": _TASK}.get(by, by)
    statement = f"""
        select {name} as name, sum(bought)::bigint, sum(reused)::bigint, {unknown}::bigint, sum(cost_usd) as cost,
            sum(saved_usd)
        from {table} where day between :first and :last group by 1
        order by {"1" if by == "day" else "cost desc, 1"}
    """
    return [Line(*row) for row in connection.execute(text(statement), {"first": first, "last": last})]


def forecast(days: Mapping[date, Decimal], today: date) -> Decimal:
    """What the month of `today` will have cost at the pace of the seven days before it, or of today if that is more
    or nothing came before.

    Args:
        days: US dollars by day, of the month and of the seven days.
    """
    last = calendar.monthrange(today.year, today.month)[1]
    week = [days.get(today - timedelta(days=n), Decimal(0)) for n in range(1, 8)]
    now = days.get(today, Decimal(0))
    pace = sum(week, Decimal(0)) / 7 or now
    past = sum((usd for day, usd in days.items() if day < today and day.month == today.month), Decimal(0))
    return past + max(now, pace) + pace * (last - today.day)


def usual_costs(connection: Connection, pipeline: str, models: Mapping[str, Sequence[Choice]]) -> dict[str, Decimal]:
    """US dollars of a call by operation: the mean of the last thousand that this pipeline bought of the operation's
    models for its items. Operations of which it bought none are left out."""
    statement = text("""
        select avg(cost_usd) from (
            select cost_usd * (1 + half_price::int) as cost_usd from paid_call_uses
            where pipeline = :pipeline and starts_with(item, :pipeline || '/') and operation = :operation
                and outcome = 'bought' and error is null and cost_usd is not null
                and (provider || ':' || model = any(:models) or provider = any(:models))
            order by id desc limit 1000
        ) as latest
    """)
    found = {}
    for operation, ones in models.items():
        values = {"pipeline": pipeline, "operation": operation, "models": [str(one) for one in ones]}
        if (cost := connection.scalar(statement, values)) is not None:
            found[operation] = cost
    return found


def of_item(connection: Connection, pipeline: str, item: str) -> tuple[Decimal, int]:
    """US dollars spent on an item (named as in `Buyer.item`), and how many bought calls have no known price."""
    statement = """
        select coalesce(sum(cost_usd), 0) as cost,
            count(*) filter (where outcome = 'bought' and cost_usd is null) as unknown
        from paid_call_uses where pipeline = :pipeline and item = :item
    """
    row = connection.execute(text(statement), {"pipeline": pipeline, "item": item}).one()
    return row.cost, row.unknown


def standins(connection: Connection, pipeline: str, item: str) -> set[str]:
    """The operations whose last answer for an item came from a stand-in."""
    statement = """
        select operation from (
            select distinct on (operation) operation, standin from paid_call_uses
            where pipeline = :pipeline and item = :item and outcome in ('bought', 'reused') and error is null
            order by operation, id desc
        ) as last where standin
    """
    return set(connection.scalars(text(statement), {"pipeline": pipeline, "item": item}))


def pauses(connection: Connection) -> Sequence[Row[Any]]:
    """Providers that are not called at the moment: `provider`, `until` and the `reason`."""
    query = "select provider, until, reason from spending_pauses where until > clock_timestamp() order by provider"
    return connection.execute(text(query)).all()
