"""Without indexes that no statement reads: each row of these tables was written into one for nothing.

Revision ID: 0023
"""

from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.execute("drop index paid_calls_input, vision_batches_age, pending_images_user")
