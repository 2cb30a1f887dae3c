"""Spending by day, pipeline, tenant, provider or model, from the journal of paid calls.

Calls of unknown price are counted separately (`unknown_cost`), so that no sum looks complete when it isn't. Stand-ins'
answers cost what the real provider would have charged; `standin` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal, get_args

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Spent:
    """One line of a summary. A column that was not grouped by is empty. Seconds are summed over the bought calls. An
    answer that was charged and is of no use counts as bought and as failed."""

    pipeline: str
    provider: str
    model: str
    bought: int
    reused: int
    failed: int
    lost: int
    standin: int
    unknown_cost: int
    input_tokens: int
    output_tokens: int
    cost_usd: Decimal
    seconds: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A provider that is not called for now, and why."""

    provider: str
    until: datetime
    reason: str


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


def today(connection: Connection, *, by: Sequence[_Group]) -> list[Spent]:
    """Totals of all uses since midnight UTC, by some columns or (none) as one line; the most expensive line first."""
    columns = ", ".join(name if name in by else f"'' as {name}" for name in get_args(_Group))
    groups = f"group by {', '.join(by)}" if by else "having count(*) > 0"
    statement = f"""
        select {columns}, {_FIGURES} from spending_days where day = (now() at time zone 'UTC')::date {groups}
        order by cost_usd desc, bought desc
    """
    return [Spent(*row) for row in connection.execute(text(statement))]


def this_month(connection: Connection) -> Decimal:
    """US dollars since the first of the month (UTC)."""
    first = "date_trunc('month', now() at time zone 'UTC')::date"
    spent = connection.scalar(text(f"select sum(cost_usd) from spending_days where day >= {first}"))
    return Decimal(spent or 0)


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


def pauses(connection: Connection) -> list[Pause]:
    """Providers that are not called at the moment."""
    rows = connection.execute(
        text("select provider, until, reason from spending_pauses where until > clock_timestamp() order by provider")
    )
    return [Pause(*row) for row in rows]
