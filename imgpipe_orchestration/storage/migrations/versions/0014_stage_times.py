"""How long items take in each stage.

Revision ID: 0014
"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    # A handful of rows that every batch updates: room on their pages keeps the updates out of the index.
    op.execute("""
        create table stage_times (
            queue text not null,
            stage text not null,
            outcome text not null check (outcome in ('done', 'retried', 'failed', 'lost')),
            items bigint not null,
            seconds double precision not null,
            primary key (queue, stage, outcome)
        ) with (fillfactor = 50);
    """)
