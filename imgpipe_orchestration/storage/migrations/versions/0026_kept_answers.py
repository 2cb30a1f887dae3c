"""Answers under an Idempotency-Key for every route, not only the listings' upload.

Gateways of the version before write through the view.

Revision ID: 0026
"""

from alembic import op

revision = "0026"
down_revision = "0025"


def upgrade() -> None:
    op.execute("""
        alter table listing_answers rename to kept_answers;
        alter table kept_answers rename column uploader to caller;
        alter table kept_answers add column route text not null default 'listings';
        alter table kept_answers drop constraint listing_answers_pkey;
        alter table kept_answers add primary key (route, caller, idempotency_key);
        alter index listing_answers_created rename to kept_answers_created;
        create view listing_answers as
            select caller as uploader, idempotency_key, request_sha256, answer, created_at
            from kept_answers where route = 'listings';
    """)
