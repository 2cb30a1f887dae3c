"""How many bytes a report and the views for it have, so that a part of one is noticed.

Revision ID: 0030
"""

from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.execute("alter table vision_batches add column report_bytes integer")
    op.execute("alter table vision_batch_images add column view_bytes integer")
