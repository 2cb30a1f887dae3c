"""How many entries of the external API's list an execution could not use.

Revision ID: 0020
"""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.execute("alter table vision_executions add column unusable integer not null default 0")
