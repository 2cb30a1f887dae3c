"""Index all listing images by their state, so that they are counted without being read, and uploads by their user.

What a restore put under a day in queues of no day, where no run takes it, goes back to none.

Revision ID: 0051
"""

from alembic import op

revision = "0051"
down_revision = "0050"


def upgrade() -> None:
    op.execute("""
        create index image_queue_status on image_queue (status, id);
        create index pending_images_user on pending_images (user_id);
        drop index image_queue_open;
        update work_items set partition = '', due_at = case state when 'waiting' then now() end
        where queue in ('media_healing', 'media_canary') and partition <> '' and state in ('waiting', 'failed');
    """)
