"""Limits of what paid calls may cost in a day or a month (UTC): in all, of a tenant, of a pipeline, of a provider.

What is under way counts as its likely cost, reserved before the provider is asked, so that two calls do not spend the
same dollar. Past a limit the calls of that scope raise `SpendingPaused`; others go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import Conflict, NotFound, SpendingPaused

Period = Literal["day", "month"]

ALERT_AT = (0.5, 0.8, 1.0)
"""Shares of a limit of which the alert webhook is told, by default."""
_LOCK = 0x1B0D6E7
"""Advisory lock under which budgets are checked, so that two calls cannot both take the last dollar."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget in its present period. `by_setting`: it is DAILY_BUDGET_USD, which a total daily budget replaces."""

    scope: str
    period: Period
    limit_usd: Decimal
    alert_at: list[float]
    by_setting: bool
    began: datetime
    ends: datetime
    seconds_left: float
    spent_usd: Decimal
    reserved_usd: Decimal
    used_up: bool
    """A call did not fit in any more, and waits."""

    @property
    def share(self) -> float:
        """The spent share of the limit; 1.0 while calls wait."""
        return 1.0 if self.used_up else float(self.spent_usd / self.limit_usd)

    @property
    def title(self) -> str:
        """For example `daily budget of pipeline media`."""
        of = "" if self.scope == "total" else " of " + self.scope.replace(":", " ", 1)
        return f"{'daily' if self.period == 'day' else 'monthly'} budget{of}"


def standings(connection: Connection, daily: float, scopes: Sequence[str] | None = None) -> list[Budget]:
    """All budgets, or those of some scopes.

    Args:
        daily: DAILY_BUDGET_USD.
    """
    values = {"daily": daily, "scopes": scopes and list(scopes), "alert_at": list(ALERT_AT)}
    return [Budget(**row._mapping) for row in connection.execute(_STANDINGS, values)]


def of(connection: Connection, scope: str, period: Period) -> dict[str, Any] | None:
    """What a budget was set to; it stays so until the transaction ends. None where there is none."""
    query = text("""
        select trim_scale(limit_usd) as limit_usd, alert_at from budgets where scope = :scope and period = :period
        for update
    """)
    row = connection.execute(query, {"scope": scope, "period": period}).one_or_none()
    return row._asdict() if row else None


def put(connection: Connection, scope: str, period: Period, limit_usd: Decimal, alert_at: Sequence[float]) -> None:
    """Set a budget, or change it."""
    values = {"scope": scope, "period": period, "limit_usd": limit_usd, "alert_at": sorted(set(alert_at))}
    connection.execute(_PUT, values)


def remove(connection: Connection, scope: str, period: Period, daily: float) -> None:
    """Remove a budget.

    Raises:
        Conflict: it is DAILY_BUDGET_USD.
        NotFound: there is none.
    """
    statement = text("delete from budgets where scope = :scope and period = :period")
    if connection.execute(statement, {"scope": scope, "period": period}).rowcount:
        return
    if daily and (scope, period) == ("total", "day"):
        raise Conflict("This budget is set by DAILY_BUDGET_USD. Set another limit in its place, or change that.")
    raise NotFound(f"{scope} has no budget for a {period}.")


def set_aside(
    connection: Connection, scopes: Sequence[str], kind: dict[str, str], daily: float, pause: float, share: Decimal
) -> Decimal | SpendingPaused | None:
    """US dollars to reserve for a call; why it has to wait; or None to wait for the first call of its kind, which tells
    what they cost.

    Args:
        scopes: those that the call belongs to.
        kind: provider, operation and model; the estimate is the highest cost of the last twenty such calls.
        pause: longest wait in seconds, because the limit may be raised.
        share: what of the list price it costs.
    """
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    mine = standings(connection, daily, scopes)
    usual = connection.execute(_USUAL, kind).one()
    estimate = usual.estimate * share
    for budget in mine:
        if budget.spent_usd >= budget.limit_usd or (
            budget.spent_usd + budget.reserved_usd + estimate > budget.limit_usd
        ):
            return _refused(connection, budget, estimate, pause)
    return None if mine and usual.scouts and not usual.known else Decimal(estimate)


def _refused(connection: Connection, budget: Budget, estimate: Decimal, pause: float) -> SpendingPaused:
    if budget.spent_usd + estimate > budget.limit_usd:  # and not only until the calls under way have ended
        connection.execute(_STOP, {name: getattr(budget, name) for name in ("scope", "period", "began", "limit_usd")})
    under_way = f", {budget.reserved_usd:.4f} reserved" if budget.reserved_usd else ""
    later = "tomorrow" if budget.period == "day" else "next month"
    raised = "DAILY_BUDGET_USD is raised" if budget.by_setting else "it is raised"
    return SpendingPaused(
        f"The {budget.title} of {budget.limit_usd.normalize():f} USD is used up ({budget.spent_usd:.4f} spent"
        f"{under_way}); paid work goes on {later}, or when {raised}",
        retry_after=min(budget.seconds_left, pause),
    )


_OF_CALL = "b.scope in ('total', 'pipeline:' || pipeline, 'provider:' || provider)"

_STANDINGS = text(f"""
    with b as (
        select scope, period, limit_usd, alert_at, false as by_setting from budgets
        union all
        select 'total', 'day', cast(cast(:daily as float8) as numeric), cast(:alert_at as float8[]), true
        where :daily > 0 and not exists (select from budgets where scope = 'total' and period = 'day')
    )
    select b.scope, b.period, b.limit_usd, b.alert_at, b.by_setting, p.began at time zone 'UTC' as began, e.ends,
        extract(epoch from e.ends - now())::float as seconds_left, s.spent_usd, r.reserved_usd,
        s.spent_usd >= b.limit_usd or exists (
            select from budget_stops u where u.scope = b.scope and u.period = b.period and u.began = p.began::date
                and u.limit_usd >= b.limit_usd
        ) as used_up
    from b
    cross join lateral (select date_trunc(b.period, now() at time zone 'UTC') as began) p
    cross join lateral (select (p.began + ('1 ' || b.period)::interval) at time zone 'UTC' as ends) e
    cross join lateral (
        select coalesce(sum(cost_usd), 0) as spent_usd from (
            select cost_usd from spending_days where day >= p.began::date and {_OF_CALL}
            union all
            select cost_usd from spending_tenants
            where tenant = substr(b.scope, 8) and starts_with(b.scope, 'tenant:') and day >= p.began::date
        ) as lines
    ) s
    cross join lateral (
        select coalesce(sum(reserved_usd), 0) as reserved_usd from paid_calls
        where state = 'started' and lease_until > clock_timestamp() and ({_OF_CALL} or b.scope = 'tenant:' || tenant)
    ) r
    where cast(:scopes as text[]) is null or b.scope = any(:scopes)
    order by b.scope <> 'total', b.scope, b.period
""")

_PUT = text("""
    insert into budgets (scope, period, limit_usd, alert_at) values (:scope, :period, :limit_usd, :alert_at)
    on conflict (scope, period) do update set limit_usd = excluded.limit_usd, alert_at = excluded.alert_at
""")

_STOP = text("""
    insert into budget_stops as s (scope, period, began, limit_usd)
    values (:scope, :period, cast(:began as timestamptz) at time zone 'UTC', :limit_usd)
    on conflict (scope, period) do update set began = excluded.began, limit_usd = excluded.limit_usd
    where (s.began, s.limit_usd) <> (excluded.began, excluded.limit_usd)
""")

# The first call of a kind has no estimate, so others wait for it (`scouts` counts pending ones, but none in a batch, of
# which nothing is heard for a day).
_USUAL = text("""
    with kind as (
        select cost_usd * (1 + half_price::int) as cost_usd from paid_call_uses
        where outcome = 'bought' and provider = :provider and operation = :operation and model = :model
        order by id desc limit 20
    )
    select
        coalesce((select max(cost_usd) from kind), 0) as estimate,
        (select count(*) from kind) as known,
        (select count(*) from paid_calls
         where state = 'started' and lease_until > clock_timestamp() and bought_for is null
           and provider = :provider and operation = :operation and model = :model) as scouts
""")
