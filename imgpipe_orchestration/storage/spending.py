"""What was spent, by whom and on what: read from the journal of paid calls, for pages, metrics and operators.

Costs of calls whose price is unknown are counted apart (`unknown_cost`), so that a sum never looks complete when it is
not. Costs of stand-ins' answers are what the real provider would have charged; `standin` counts those calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Spent:
    """One line of a summary. What was not grouped by is an empty text. Seconds are summed over the bought calls."""

    day: date | None
    pipeline: str
    tenant: str
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
    """A provider that is left alone for now, and why."""

    provider: str
    until: datetime
    reason: str


_GROUPS = ("day", "pipeline", "tenant", "provider", "model")
_EXPRESSIONS = {"day": "cast(at at time zone 'UTC' as date)"}

_FIGURES = """
    count(*) filter (where outcome = 'bought') as bought,
    count(*) filter (where outcome = 'reused') as reused,
    count(*) filter (where outcome = 'failed') as failed,
    count(*) filter (where outcome = 'lost') as lost,
    count(*) filter (where outcome = 'bought' and standin) as standin,
    count(*) filter (where outcome = 'bought' and cost_usd is null) as unknown_cost,
    cast(coalesce(sum(input_tokens), 0) as bigint) as input_tokens,
    cast(coalesce(sum(output_tokens), 0) as bigint) as output_tokens,
    coalesce(sum(cost_usd), 0) as cost_usd,
    coalesce(sum(seconds) filter (where outcome = 'bought'), 0) as seconds
"""


def summary(connection: Connection, *, since: datetime, by: Sequence[str] = ("day", "provider")) -> list[Spent]:
    """Totals of all uses since a moment, newest day and dearest line first.

    Args:
        by: what to group by, any of day (UTC), pipeline, tenant, provider, model.

    Raises:
        ValueError: `by` names something else.
    """
    if unknown := set(by) - set(_GROUPS):
        raise ValueError(f"cannot group spending by {sorted(unknown)}")
    columns = [
        f"{_EXPRESSIONS.get(name, name)} as {name}"
        if name in by
        else f"{'cast(null as date)' if name == 'day' else repr('')} as {name}"
        for name in _GROUPS
    ]
    groups = f"group by {', '.join(str(_GROUPS.index(name) + 1) for name in by)}" if by else ""
    statement = f"""
        select {", ".join(columns)}, {_FIGURES} from paid_call_uses where at >= :since {groups}
        order by 1 desc nulls last, cost_usd desc, bought desc
    """
    return [Spent(*row) for row in connection.execute(text(statement), {"since": since})]


def of_item(connection: Connection, pipeline: str, item: str) -> tuple[Decimal, int]:
    """US dollars spent on an item (as named in `Buyer.item`), and how many bought calls have no known price."""
    statement = """
        select coalesce(sum(cost_usd), 0) as cost,
            count(*) filter (where outcome = 'bought' and cost_usd is null) as unknown
        from paid_call_uses where pipeline = :pipeline and item = :item
    """
    row = connection.execute(text(statement), {"pipeline": pipeline, "item": item}).one()
    return row.cost, row.unknown


def standins(connection: Connection, pipeline: str, item: str) -> set[str]:
    """Calls whose last answer for an item came from a stand-in, as `provider operation`."""
    statement = """
        select provider || ' ' || operation from (
            select distinct on (provider, operation) provider, operation, standin from paid_call_uses
            where pipeline = :pipeline and item = :item and outcome in ('bought', 'reused')
            order by provider, operation, id desc
        ) as last where standin
    """
    return set(connection.scalars(text(statement), {"pipeline": pipeline, "item": item}))


def pauses(connection: Connection) -> list[Pause]:
    """Providers that are left alone at this moment."""
    rows = connection.execute(
        text("select provider, until, reason from spending_pauses where until > clock_timestamp() order by provider")
    )
    return [Pause(*row) for row in rows]
