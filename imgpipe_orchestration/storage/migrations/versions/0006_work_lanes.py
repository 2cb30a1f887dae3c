"""Claims whose cost does not depend on what waits for later, and fairness that holds for retries too.

Before, one index in the order of turns held everything unfinished, and a claim stepped over what was not due: a hundred
thousand items pausing for a provider's quota made each claim read them all. Now what is ready (`due_at` is null) and
what waits for a moment (`due_at` is set) stand in two indexes, and a claim moves what has become due from one to the
other. The ready ones have lanes: new items, items that failed before, items whose worker died.

Turns are counted per partition, since a claim takes from one partition.

Revision ID: 0006
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("""
        alter table work_items add lane integer not null generated always as (
            case when losses > 0 then 1 + losses when failures > 0 then 1 else 0 end) stored;
        drop index work_items_turn, work_items_due;
        update work_items set due_at = null where state = 'waiting' and due_at <= now();
        create index work_items_ready on work_items (queue, partition, lane, turn)
            where state = 'waiting' and due_at is null;
        create index work_items_due on work_items (queue, partition, due_at) where due_at is not null;

        create table work_served (
            queue text not null, partition text not null, lane integer not null, turn bigint not null,
            primary key (queue, partition, lane));
        create table work_turns (
            queue text not null,
            partition text not null,
            tenant text not null,
            flow text not null check (flow in ('new', 'back', 'again')),
            last_turn bigint not null,
            added bigint not null,
            primary key (queue, partition, tenant, flow));

        insert into work_served select i.queue, i.partition, 0, max(q.turn)
            from work_items i join work_queues q on q.queue = i.queue
            where i.state in ('waiting', 'claimed') group by i.queue, i.partition;
        insert into work_turns select queue, partition, tenant, 'new', max(turn), 0
            from work_items where state in ('waiting', 'claimed') group by queue, partition, tenant;
        drop table work_queues, work_tenants;

        -- Each item is written five times or so in its life and every write leaves a dead row. Autovacuum's default
        -- (a fifth of the table) would let two hundred thousand of them pile up at the head of the queue's indexes.
        alter table work_items set (
            fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
            autovacuum_analyze_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
        alter table work_served set (fillfactor = 20, autovacuum_vacuum_threshold = 500);
        alter table work_turns set (fillfactor = 50, autovacuum_vacuum_threshold = 500);
    """)
