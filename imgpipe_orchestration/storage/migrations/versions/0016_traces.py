"""The trace (W3C `traceparent`) of what put an item in, and of an upload until it is registered.

Revision ID: 0016
"""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.execute("""
        alter table work_items add column trace text not null default '';
        alter table job_instances add column trace text not null default '';
        alter table media_files add column trace text not null default '';
        -- `pending_images` belongs to the main API, and may lie in a database of its own.
        create table upload_traces (
            pending_id bigint primary key,
            trace text not null,
            created_at timestamptz not null default now()
        );
    """)
