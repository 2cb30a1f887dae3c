"""What other workers found in the images that they processed.

Revision ID: 0017
"""

from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    # No reference to pending_images, which may live in another database.
    op.execute("""
        create table reported_analyses (
            pending_id bigint primary key,
            media_id text not null,
            analysis jsonb not null,
            reported_at timestamptz not null default now()
        );
        create index reported_analyses_media on reported_analyses (media_id);
    """)
