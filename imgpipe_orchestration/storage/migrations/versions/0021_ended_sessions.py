"""Sessions that an operator signed out of before they expired.

Revision ID: 0021
"""

from alembic import op

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    op.execute("create table ended_sessions (session_id text primary key, expires_at timestamptz not null)")
