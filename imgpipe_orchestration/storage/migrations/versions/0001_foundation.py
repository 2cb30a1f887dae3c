"""Queues and on-demand jobs.

Revision ID: 0001
"""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        create table work_items (
            queue text not null,
            item_id bigint not null,
            tenant text not null default '',
            partition text not null default '',
            state text not null check (state in ('waiting', 'claimed', 'done', 'failed', 'ignored')),
            due_at timestamptz,
            turn bigint not null,
            owner text,
            attempt integer not null default 0,
            failures integer not null default 0,
            losses integer not null default 0,
            error text,
            error_code text,
            created_at timestamptz not null default now(),
            claimed_at timestamptz,
            updated_at timestamptz not null default now(),
            primary key (queue, item_id)
        );
        create index work_items_turn on work_items (queue, partition, turn) where state in ('waiting', 'claimed');
        create index work_items_due on work_items (queue, partition, due_at) where state in ('waiting', 'claimed');
        create index work_items_owner on work_items (owner) where state = 'claimed';
        create index work_items_failed on work_items (queue, updated_at) where state = 'failed';
        create index work_items_finished on work_items (updated_at) where state in ('done', 'ignored');

        create table work_queues (queue text primary key, turn bigint not null);
        create table work_tenants (
            queue text not null, tenant text not null, last_turn bigint not null, primary key (queue, tenant));

        create table work_attempts (
            id bigint generated always as identity primary key,
            queue text not null,
            item_id bigint not null,
            attempt integer not null,
            owner text not null,
            started_at timestamptz,
            ended_at timestamptz not null default now(),
            outcome text not null,
            error text,
            error_code text
        );
        create index work_attempts_item on work_attempts (queue, item_id);
        create index work_attempts_ended on work_attempts (ended_at);

        create table job_instances (
            id uuid primary key default gen_random_uuid(),
            job text not null,
            trigger text not null check (trigger in ('scheduled', 'on_demand')),
            customer_id text not null default '',
            user_id text not null default '',
            payload jsonb not null default '{}',
            status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed')),
            result jsonb not null default '{}',
            error text,
            run_id text,
            created_at timestamptz not null default now(),
            started_at timestamptz,
            finished_at timestamptz
        );
        create index job_instances_recent on job_instances (job, customer_id, created_at desc);
        create index job_instances_open on job_instances (job, created_at) where status in ('queued', 'running');
    """)
