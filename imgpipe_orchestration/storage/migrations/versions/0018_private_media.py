"""Media that only their owners show, and uploads that go straight to the object store.

Revision ID: 0018
"""

from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    op.execute("""
        alter table media_files add column private boolean not null default false;
        create index media_files_private on media_files (image_path) where private;

        drop trigger tell_changed on media_files;
        create trigger tell_changed after update of status, recipe, focus, error, private or delete on media_files
            for each row execute function tell_media_changed('id');

        -- What a caller was allowed to put under `object_key`; pending_id once it is accepted.
        create table media_uploads (
            id text primary key,
            user_id bigint not null,
            field text not null,
            original_name varchar(255) not null,
            content_type text not null,
            bytes bigint not null,
            private boolean not null,
            object_key text not null unique,
            pending_id bigint,
            image_path text,
            created_at timestamptz not null default now(),
            expires_at timestamptz not null
        );
        create index media_uploads_user on media_uploads (user_id, expires_at);
        create index media_uploads_private on media_uploads (image_path) where private;
    """)
