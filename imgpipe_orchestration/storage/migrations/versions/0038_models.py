"""Which model answered each task of an analysis.

Revision ID: 0038
"""

from alembic import op

revision = "0038"
down_revision = "0037"


def upgrade() -> None:
    op.execute("alter table media_ai_analysis add column answered_by jsonb not null default '{}'")
