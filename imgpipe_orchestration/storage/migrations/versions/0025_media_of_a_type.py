"""The gallery and the search by type: without an index a rare type is looked for in every image there is.

Revision ID: 0025
"""

from alembic import op

revision = "0025"
down_revision = "0024"


def upgrade() -> None:
    op.execute("create index media_files_type on media_files (data_type, id desc)")
