"""Counts of the queues that cost the same at a thousand items and at a million.

A count per queue and state in one row would be a lock that every worker waits for. So each statement that changes
items appends what it changed (`work_counts` holds differences; the sum is the count), and now and then one of them adds
up the rows it finds. Nobody waits: rows that another transaction is adding up are skipped.

Revision ID: 0004
"""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.execute("""
        create table work_counts (queue text not null, state text not null, n bigint not null);

        -- The table lives on its few newest rows: clean it often, and never stop at statistics.
        alter table work_counts set (autovacuum_vacuum_threshold = 500, autovacuum_vacuum_scale_factor = 0);

        create function work_counts_add_up() returns void language sql as $$
            with gone as (
                delete from work_counts
                where ctid = any(array(select ctid from work_counts for update skip locked))
                returning queue, state, n
            )
            insert into work_counts select queue, state, sum(n) from gone group by queue, state having sum(n) <> 0
        $$;

        create function work_items_counted() returns trigger language plpgsql as $$
        begin
            if tg_op = 'INSERT' then
                insert into work_counts select queue, state, count(*) from added group by queue, state;
            elsif tg_op = 'DELETE' then
                insert into work_counts select queue, state, -count(*) from removed group by queue, state;
            elsif tg_op = 'UPDATE' then
                insert into work_counts
                select queue, state, sum(n) from (
                    select queue, state, count(*) as n from added group by queue, state
                    union all
                    select queue, state, -count(*) from removed group by queue, state
                ) as changes group by queue, state having sum(n) <> 0;
            else
                delete from work_counts;
            end if;
            -- One statement in fifty tidies up, which keeps a few hundred rows at most.
            if random() < 0.02 then
                perform work_counts_add_up();
            end if;
            return null;
        end $$;

        create trigger counted_insert after insert on work_items
            referencing new table as added for each statement execute function work_items_counted();
        create trigger counted_update after update on work_items
            referencing new table as added old table as removed
            for each statement execute function work_items_counted();
        create trigger counted_delete after delete on work_items
            referencing old table as removed for each statement execute function work_items_counted();
        create trigger counted_truncate after truncate on work_items
            for each statement execute function work_items_counted();

        insert into work_counts select queue, state, count(*) from work_items group by queue, state;

        create index work_items_open on work_items (queue, created_at) where state in ('waiting', 'claimed');
        drop index work_items_failed, work_items_finished;
        create index work_items_failed on work_items (updated_at, queue, item_id) where state = 'failed';
        create index work_items_failed_in on work_items (queue, updated_at, item_id) where state = 'failed';
        create index work_items_finished on work_items (queue, updated_at) where state in ('done', 'ignored');
    """)
