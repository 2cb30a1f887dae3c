"""Counts for pages: who asks for an image (hosts and programs, no person), and what was done in past hours.

Revision ID: 0019
"""

from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    op.execute("""
        create table media_callers (
            media_id bigint not null references media_files on delete cascade,
            kind text not null check (kind in ('page', 'client')),
            caller text not null,
            size text not null,
            format text not null,
            requests bigint not null,
            first_at timestamptz not null default now(),
            last_at timestamptz not null default now(),
            primary key (media_id, kind, caller, size, format)
        ) with (fillfactor = 80);
        create index media_callers_age on media_callers (last_at);

        create table work_bins (
            bin timestamptz not null,
            queue text not null,
            outcome text not null,
            n bigint not null,
            primary key (bin, queue, outcome)
        );
    """)
