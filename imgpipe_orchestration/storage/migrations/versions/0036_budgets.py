"""Budgets; spending by task and by tenant, and what reused answers saved.

Revision ID: 0036
"""

from alembic import op

revision = "0036"
down_revision = "0033"

_FIGURES = """
    (at at time zone 'UTC')::date, pipeline, provider, model, operation, (outcome = 'bought')::int,
    (outcome = 'reused')::int, (outcome = 'failed' or outcome = 'bought' and error is not null)::int,
    (outcome = 'lost')::int, (outcome = 'bought' and standin)::int, (outcome = 'bought' and cost_usd is null)::int,
    input_tokens, output_tokens, coalesce(cost_usd, 0), case when outcome = 'bought' then seconds else 0 end,
    coalesce(saved_usd, 0)
"""
_NAMES = (
    "bought, reused, failed, lost, standin, unknown_cost, input_tokens, output_tokens, cost_usd, seconds, saved_usd"
)
_KEY = "day, pipeline, provider, model, operation"
_SUMS = ", ".join(f"sum({name.strip()})" for name in _NAMES.split(","))
_ADDED = ", ".join(f"{name.strip()} = d.{name.strip()} + excluded.{name.strip()}" for name in _NAMES.split(","))
_TENANT = "(at at time zone 'UTC')::date, tenant, sum((outcome = 'bought')::int), sum((outcome = 'reused')::int)"
_TENANT += ", sum(coalesce(cost_usd, 0)), sum(coalesce(saved_usd, 0))"


def upgrade() -> None:
    op.execute(f"""
        create table budgets (
            scope text not null,
            period text not null check (period in ('day', 'month')),
            limit_usd numeric(14, 6) not null check (limit_usd >= 0),
            alert_at double precision[] not null,
            primary key (scope, period)
        );
        create table budget_stops (
            scope text not null,
            period text not null,
            began date not null,
            limit_usd numeric(14, 6) not null,
            primary key (scope, period)
        );
        comment on table budget_stops is 'Budgets that refused a call: in the period from `began`, at this limit';

        lock table paid_call_uses in share row exclusive mode;
        alter table paid_call_uses add column saved_usd numeric(12, 6);
        -- For whom a call is under way, for the budgets that it counts against; empty otherwise.
        alter table paid_calls add column pipeline text not null default '', add column tenant text not null default '';

        alter table spending_days add column operation text not null default '',
            add column saved_usd numeric(14, 6) not null default 0;
        alter table spending_days drop constraint spending_days_pkey, add primary key ({_KEY});
        delete from spending_days where day > (select min(at at time zone 'UTC')::date from paid_call_uses);
        insert into spending_days ({_KEY}, {_NAMES})
        select {_KEY}, {_SUMS} from (select {_FIGURES} from paid_call_uses) as one ({_KEY}, {_NAMES})
        where day > (select min(at at time zone 'UTC')::date from paid_call_uses) group by {_KEY};

        create table spending_tenants (
            tenant text not null,
            day date not null,
            bought bigint not null,
            reused bigint not null,
            cost_usd numeric(14, 6) not null,
            saved_usd numeric(14, 6) not null,
            primary key (tenant, day)
        );
        create index spending_tenants_day on spending_tenants (day);
        insert into spending_tenants (day, tenant, bought, reused, cost_usd, saved_usd)
        select {_TENANT} from paid_call_uses group by 1, 2;

        create or replace function count_paid_call_uses() returns trigger language plpgsql as $$
        begin
            insert into spending_days as d ({_KEY}, {_NAMES})
            select {_KEY}, {_SUMS} from (select {_FIGURES} from added) as one ({_KEY}, {_NAMES})
            group by {_KEY} order by {_KEY}
            on conflict ({_KEY}) do update set {_ADDED};
            insert into spending_tenants as t (day, tenant, bought, reused, cost_usd, saved_usd)
            select {_TENANT} from added group by 1, 2 order by 1, 2
            on conflict (tenant, day) do update set bought = t.bought + excluded.bought,
                reused = t.reused + excluded.reused, cost_usd = t.cost_usd + excluded.cost_usd,
                saved_usd = t.saved_usd + excluded.saved_usd;
            return null;
        end $$;
    """)
