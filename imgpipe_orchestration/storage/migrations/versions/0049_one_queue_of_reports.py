"""Failed uploads are reported from the queue in which processed ones are settled.

Revision ID: 0049
"""

from alembic import op

revision = "0049"
down_revision = "0048"


def upgrade() -> None:
    op.execute("""
        delete from work_items old using work_items new
        where old.queue = 'media_cleanups' and new.queue = 'media_urls' and new.item_id = old.item_id;
        update work_items set queue = 'media_urls' where queue = 'media_cleanups';
        update work_attempts set queue = 'media_urls' where queue = 'media_cleanups';
    """)
