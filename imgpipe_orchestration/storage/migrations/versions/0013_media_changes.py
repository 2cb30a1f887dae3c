"""Every change of a media file or its manifest is told on the channel `media_changed`, for caches of served images.

Revision ID: 0013
"""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    # PostgreSQL drops equal notifications of one transaction, so thirty new variants make one message. The argument of
    # the trigger is the column that holds the media id.
    op.execute("""
        create function tell_media_changed() returns trigger language plpgsql as $$
        begin
            perform pg_notify('media_changed', coalesce(to_jsonb(new), to_jsonb(old)) ->> tg_argv[0]);
            return null;
        end $$;
        create trigger tell_changed after update of status, recipe, focus, error or delete on media_files
            for each row execute function tell_media_changed('id');
        create trigger tell_changed after insert or update or delete on media_variants
            for each row execute function tell_media_changed('media_id');
    """)
