"""How many images of an analysis an execution could use: an analysis remembers its last execution's only.

Revision ID: 0024
"""

from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.execute("""
        alter table vision_outcomes add images_total integer, add images_usable integer;
        update vision_outcomes o set images_total = a.images_total, images_usable = a.images_usable
            from vision_analyses a where a.id = o.analysis_id and a.execution_id = o.execution_id;
    """)
