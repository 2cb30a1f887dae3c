"""Placeholders as data URLs instead of ThumbHashes; images have theirs when they are analysed again.

Revision ID: 0032
"""

from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.execute("alter table media_ai_analysis drop column thumbhash, add column placeholder text")
