"""Avatars that may take a day, and batches that nobody waits for any more.

Revision ID: 0046
"""

from alembic import op

revision = "0046"
down_revision = "0044"


def upgrade() -> None:
    op.execute("""
        alter table generation_tasks add column urgent boolean not null default true;
        alter table ai_batches add column cancel_at timestamptz;
    """)
