"""Batches go by the work item that waits for them, so that those of items which wait no more are found.

Revision ID: 0047
"""

from alembic import op

revision = "0047"
down_revision = "0046"


def upgrade() -> None:
    op.execute(r"""
        update ai_batches set item = case
            when starts_with(item, 'media/') then 'media_unhurried_analysis' || substr(item, 6)
            when starts_with(item, 'task_') then 'avatar_images/' || substring(item from '[0-9]+$')
            else item end
    """)
