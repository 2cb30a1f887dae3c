"""Results and costs by day (UTC), and tasks without progress."""

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from sqlalchemy import Connection, text

from imgpipe_orchestration.avatars.records import ENDED_SQL
from imgpipe_orchestration.storage.backlog import STUCK_SECONDS


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


def stuck(connection: Connection) -> list[str]:
    """Public ids of unfinished tasks without progress for STUCK_SECONDS, none of whose items is claimed or waits for a
    later time (a pause)."""
    return list(connection.scalars(_STUCK, {"seconds": STUCK_SECONDS}))


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

_STUCK = text(f"""
    select t.task_id from generation_tasks t
    where t.status not in ({ENDED_SQL})
        and t.updated_at < now() - make_interval(secs => :seconds)
        and not exists (select from generation_results r
            where r.task_id = t.id and r.updated_at >= now() - make_interval(secs => :seconds))
        and not exists (select from work_items w
            where w.state in ('waiting', 'claimed') and w.due_at > now() and (
                (w.queue = 'avatar_data' and w.item_id = t.id) or (w.queue = 'avatar_images'
                    and w.item_id in (select id from generation_results where task_id = t.id))))
""")
