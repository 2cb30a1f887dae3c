"""The leases of job instances go to the one table of work.

What waits or was at work waits again, under its own id. That a run had begun it shows in its item's attempt.

Revision ID: 0043
"""

from alembic import op

revision = "0043"
down_revision = "0040"


def upgrade() -> None:
    op.execute("""
        update job_instances j set status = 'failed', finished_at = now(), error = 'Another job did this one''s work.'
        from job_instances other where j.status in ('queued', 'running') and other.status in ('queued', 'running')
            and other.job = j.job and other.customer_id = j.customer_id
            and (other.status = 'running', j.created_at, j.id) > (j.status = 'running', other.created_at, other.id);
        update job_instances set status = 'queued' where status = 'running';
        alter table job_instances
            add column number bigint generated always as identity unique,
            drop column lease_until, drop column attempts, drop column payload,
            drop constraint job_instances_status_check,
            add constraint job_instances_status_check check (status in ('queued', 'completed', 'failed'));
        create unique index job_instances_one_open on job_instances (job, customer_id) where status = 'queued';
        drop index job_instances_open, job_instances_run;
        insert into work_items (queue, item_id, tenant, trace, state, due_at, turn, attempt, created_at)
            select job, number, customer_id, trace, 'waiting', now(), 0, (started_at is not null)::int, created_at
            from job_instances where status = 'queued';
        alter table job_instances drop column trace;
    """)
