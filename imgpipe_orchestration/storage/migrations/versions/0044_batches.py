"""Questions that are not urgent, sent to a provider together at half its price.

A row of `ai_batches` is a batch under way. Its calls are rows of `paid_calls` that its token owns and whose
`bought_for` is the item that asked.

Revision ID: 0044
"""

from alembic import op

revision = "0044"
down_revision = "0043"


def upgrade() -> None:
    op.execute("""
        create table ai_batches (
            item text primary key,
            token text not null unique,
            provider text not null,
            batch_id text,
            began_at timestamptz not null default now()
        );
        alter table paid_calls add column bought_for text;
        create index paid_calls_of_batches on paid_calls (owner) where state = 'started' and bought_for is not null;
        alter table paid_call_uses add column half_price boolean not null default false;
        alter table cron_jobs add column urgent boolean not null default true;
        alter table vision_batches add column urgent boolean not null default true;
    """)
