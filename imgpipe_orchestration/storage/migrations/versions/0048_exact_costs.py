"""Costs to the last digit: an embedding costs little more than the millionth of a dollar that they were rounded to.

No table is written anew for it.

Revision ID: 0048
"""

from alembic import op

revision = "0048"
down_revision = "0047"


def upgrade() -> None:
    op.execute("""
        alter table paid_calls alter cost_usd type numeric, alter reserved_usd type numeric;
        alter table paid_call_uses alter cost_usd type numeric, alter saved_usd type numeric;
        alter table spending_days alter cost_usd type numeric, alter saved_usd type numeric;
        alter table spending_tenants alter cost_usd type numeric, alter saved_usd type numeric;
    """)
