"""Ignored dead letters in a list of their own, apart from withdrawn items.

Revision ID: 0028
"""

from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    # A dismissed item has the error of its last attempt; a withdrawn one says why it was withdrawn.
    op.execute("""
        update work_items w set error_code = 'withdrawn' where state = 'ignored' and not exists (
            select from work_attempts a where a.queue = w.queue and a.item_id = w.item_id
            and a.outcome = 'failed' and a.error is not distinct from w.error);
        create index work_items_ignored on work_items (updated_at, queue, item_id)
            where state = 'ignored' and error_code is distinct from 'withdrawn';
        create index work_items_ignored_in on work_items (queue, updated_at, item_id)
            where state = 'ignored' and error_code is distinct from 'withdrawn';
    """)
