"""What was spent by day, so that the budget and the overview need not sum the uses of a day; and an index for asking
whether a call is still in use, which retention does for each old one.

Revision ID: 0027
"""

from alembic import op

revision = "0027"
down_revision = "0026"

_FIGURES = """
    (at at time zone 'UTC')::date, pipeline, provider, model, (outcome = 'bought')::int, (outcome = 'reused')::int,
    (outcome = 'failed' or outcome = 'bought' and error is not null)::int, (outcome = 'lost')::int,
    (outcome = 'bought' and standin)::int, (outcome = 'bought' and cost_usd is null)::int,
    input_tokens, output_tokens, coalesce(cost_usd, 0), case when outcome = 'bought' then seconds else 0 end
"""
_NAMES = "bought, reused, failed, lost, standin, unknown_cost, input_tokens, output_tokens, cost_usd, seconds"
_COLUMNS = f"day, pipeline, provider, model, {_NAMES}"
_SUMS = ", ".join(f"sum({name.strip()})" for name in _NAMES.split(","))
_ADDED = ", ".join(f"{name.strip()} = d.{name.strip()} + excluded.{name.strip()}" for name in _NAMES.split(","))


def upgrade() -> None:
    op.execute(f"""
        create table spending_days (
            day date not null,
            pipeline text not null,
            provider text not null,
            model text not null,
            bought bigint not null,
            reused bigint not null,
            failed bigint not null,
            lost bigint not null,
            standin bigint not null,
            unknown_cost bigint not null,
            input_tokens bigint not null,
            output_tokens bigint not null,
            cost_usd numeric(14, 6) not null,
            seconds double precision not null,
            primary key (day, pipeline, provider, model)
        );
        comment on table spending_days is 'paid_call_uses by day (UTC), kept by a trigger';

        create function count_paid_call_uses() returns trigger language plpgsql as $$
        begin
            insert into spending_days as d
            select day, pipeline, provider, model, {_SUMS} from (select {_FIGURES} from added) as one ({_COLUMNS})
            group by 1, 2, 3, 4 order by 1, 2, 3, 4
            on conflict (day, pipeline, provider, model) do update set {_ADDED};
            return null;
        end $$;

        lock table paid_call_uses in share row exclusive mode;
        create trigger paid_call_uses_counted after insert on paid_call_uses
            referencing new table as added for each statement execute function count_paid_call_uses();
        insert into spending_days
        select day, pipeline, provider, model, {_SUMS} from (select {_FIGURES} from paid_call_uses) as one ({_COLUMNS})
        group by 1, 2, 3, 4;

        drop index paid_call_uses_spent;
        create index paid_call_uses_key on paid_call_uses (key);
    """)
