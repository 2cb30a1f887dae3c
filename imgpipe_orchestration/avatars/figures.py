"""Results and costs by day (UTC)."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text


@dataclass(frozen=True, slots=True)
class Day:
    """One day: people completed and failed, paid calls, US dollars (calls of unknown price count as 0)."""

    day: date
    completed: int
    failed: int
    calls: int
    cost_usd: Decimal
    standin: bool


def daily(connection: Connection, days: int = 30) -> list[Day]:
    """Those of the last `days` days, today included, on which something happened; the latest first."""
    return [Day(*row) for row in connection.execute(_DAILY, {"days": days})]


_DAILY = text("""
    with since as (
        select date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * (:days - 1)) as first
    ), people as (
        select (finished_at at time zone 'UTC')::date as day, count(*) filter (where status = 'completed') as completed,
            count(*) filter (where status = 'failed') as failed
        from generation_results, since where finished_at >= first group by 1
    ), spent as (
        select day, cast(sum(bought) as bigint) as calls, sum(cost_usd) as cost, sum(standin) > 0 as standin
        from spending_days, since
        where pipeline = 'avatars' and bought > 0 and day >= (first at time zone 'UTC')::date group by 1
    )
    select coalesce(p.day, s.day), coalesce(p.completed, 0), coalesce(p.failed, 0), coalesce(s.calls, 0),
        coalesce(s.cost, 0), coalesce(s.standin, false)
    from people p full join spent s on s.day = p.day order by 1 desc
""")
