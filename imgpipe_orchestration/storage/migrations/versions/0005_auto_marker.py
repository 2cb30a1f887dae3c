"""Leases of running jobs, signs of life, and who changed a customer's toggle.

Revision ID: 0005
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("""
        alter table job_instances add column lease_until timestamptz;
        alter table job_instances add column attempts integer not null default 0;
        create index job_instances_run on job_instances (run_id) where status = 'running';
        create index job_instances_latest on job_instances (job, created_at desc);

        create table heartbeats (
            name text primary key,
            beat_at timestamptz not null default now(),
            detail jsonb not null default '{}'
        );

        create table image_config_changes (
            id bigint generated always as identity primary key,
            customer_id text not null,
            changed_by text not null,
            changed_at timestamptz not null default now(),
            before jsonb,
            after jsonb not null
        );
        create index image_config_changes_customer on image_config_changes (customer_id, id desc);
    """)
