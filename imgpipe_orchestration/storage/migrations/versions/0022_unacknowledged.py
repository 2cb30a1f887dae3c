"""The hourly look for media that the main API has not acknowledged, without reading those that it has.

Revision ID: 0022
"""

from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.execute("""
        create index processing_checklist_unacknowledged on processing_checklist (media_id)
        where resize_optimize = 'completed' and update_callback <> 'completed'
    """)
