"""The whole schema, from `baseline.sql`.

Revision ID: 0047
"""

from pathlib import Path

from alembic import op

revision = "0047"
down_revision = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(Path(__file__).parents[1].joinpath("baseline.sql").read_text().replace("%", "%%"))
