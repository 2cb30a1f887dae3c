"""Drop what nothing reads or writes.

Revision ID: 0050
"""

from alembic import op

revision = "0050"
down_revision = "0049"


def upgrade() -> None:
    op.execute("""
        drop table image_config_changes;
        drop index generation_tasks_removable;
        alter table generation_tasks drop column images_removed_at;
        alter table job_definitions drop column last_checked_at;
    """)
