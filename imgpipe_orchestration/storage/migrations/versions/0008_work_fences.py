"""The fence of every write, and a key that serves it and nothing else.

An item has an owner exactly while it is claimed: (queue, item, owner, attempt) is the whole question of a fence.

The key begins with the item. With the queue first, a planner whose statistics date from before the queue existed takes
"all of the queue" for one row, and joins ten claimed items to it by reading a million.

Revision ID: 0008
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("""
        alter table work_items add constraint work_items_owner_while_claimed
            check ((state = 'claimed') = (owner is not null));
        alter table work_items drop constraint work_items_pkey, add primary key (item_id, queue);
    """)
