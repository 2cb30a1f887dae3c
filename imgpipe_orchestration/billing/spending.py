"""Spending by day, pipeline, tenant, provider or model, from the journal of paid calls.

Calls of unknown price are counted separately (`unknown_cost`), so that no sum looks complete when it isn't. Stand-ins'
answers cost what the real provider would have charged; `standin` counts them.
"""

import calendar
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.partners.models import Choice

_Group = Literal["day", "pipeline", "provider", "model", "task"]

_FIGURES = ", ".join(
    f"cast(sum({name}) as {kind}) as {name}"
    for kind, names in {
        "bigint": "bought reused failed lost standin unknown_cost input_tokens output_tokens",
        "numeric": "cost_usd saved_usd",
        "double precision": "seconds",
    }.items()
    for name in names.split()
)

_TASKS = {
    ("media", "vision"): "describe",
    ("media", "annotate"): "labels",
    ("media", "embedding"): "embed",
    ("evaluation", "vision"): "describe",
    ("vision_reports", "responses"): "report",
    ("avatars", "personas"): "persona",
    ("avatars", "prompt"): "prompt",
    ("avatars", "images"): "draw",
    ("avatars", "edits"): "edit",
}
"""What the calls of (pipeline, operation) are for; others go by the name of their operation."""

_TASK = "case "
_TASK += " ".join(f"when (pipeline, operation) = {key} then '{task}'" for key, task in _TASKS.items())
_TASK += " when operation in ('moderation', 'safe_search') then 'moderate' else operation end"


def between(connection: Connection, first: date, last: date, by: Sequence[_Group]) -> Sequence[Row[Any]]:
    """Totals from the first to the last day (UTC, both included) by some columns: days in order, else the most
    expensive line first. Seconds are summed over the bought calls. An answer that was charged and is of no use counts
    as bought and as failed. `saved_usd` is what reused answers had cost."""
    columns = ", ".join(by)
    statement = f"""
        select {columns}, {_FIGURES} from (select *, {_TASK} as task from spending_days) as spent
        where day between :first and :last group by {columns}
        order by {"day" if "day" in by else f"cost_usd desc, {columns}"}
    """
    return connection.execute(text(statement), {"first": first, "last": last}).all()


def by_tenant(connection: Connection, first: date, last: date) -> Sequence[Row[Any]]:
    """What each tenant spent, the most first. Calls of unknown cost are not counted by tenant."""
    statement = """
        select tenant, sum(bought)::bigint as bought, sum(reused)::bigint as reused, 0 as unknown_cost,
            sum(cost_usd) as cost_usd, sum(saved_usd) as saved_usd
        from spending_tenants where day between :first and :last group by tenant order by cost_usd desc, tenant
    """
    return connection.execute(text(statement), {"first": first, "last": last}).all()


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
