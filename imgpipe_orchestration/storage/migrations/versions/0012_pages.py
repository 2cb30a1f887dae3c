"""What the pages look up: media by their state.

Revision ID: 0012
"""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.execute("""
        create index media_files_status on media_files (status, id desc);
    """)
