"""The end of a job instance is what its retention counts from.

Revision ID: 0010
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute("""
        create index job_instances_ended on job_instances (finished_at) where status in ('completed', 'failed');
    """)
