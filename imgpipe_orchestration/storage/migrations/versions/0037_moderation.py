"""Verdicts on what strangers send, what people decided, and whether an image is held back.

`held` stands on the rows themselves, so that nothing has to be asked for besides them before an image is shown.

Revision ID: 0037
"""

from alembic import op

revision = "0037"
down_revision = "0036"


def upgrade() -> None:
    # `digest` is of the bytes, keyed with SECRET_KEY: what people decided of them outlives the image, and its hash does
    # not.
    op.execute("""
        create table verdicts (
            id bigint generated always as identity primary key,
            kind text not null,
            item bigint not null,
            user_id bigint,
            digest uuid not null,
            state text not null default 'waiting'
                check (state in ('waiting', 'clear', 'flagged', 'held', 'approved', 'rejected')),
            holding boolean not null,
            by_person boolean not null default false,
            provider text,
            model text,
            scores jsonb not null default '{}',
            categories text[] not null default '{}',
            decided_by text,
            decided_at timestamptz,
            reason text,
            reports integer not null default 0,
            review_since timestamptz,
            claimed_by text,
            claimed_until timestamptz,
            moved_at timestamptz not null default now(),
            created_at timestamptz not null default now(),
            unique (kind, item)
        );
        create index verdicts_review on verdicts (review_since, id) where review_since is not null;
        create index verdicts_decided on verdicts (decided_at);
        create index verdicts_moved on verdicts (moved_at);
        create index verdicts_digest on verdicts (digest);
        create index verdicts_user on verdicts (user_id, id);

        create table decisions (
            digest uuid primary key,
            approved boolean not null,
            what text not null,
            reason text not null,
            decided_by text not null,
            decided_at timestamptz not null default now()
        );

        create table reports (
            kind text not null,
            item bigint not null,
            reporter uuid not null,
            reason text not null,
            created_at timestamptz not null default now(),
            primary key (kind, item, reporter)
        );

        alter table media_files add column held boolean not null default false;
        alter table image_queue add column held boolean not null default false;
        create index media_files_path on media_files (image_path);
        drop index media_files_private;
        drop trigger tell_changed on media_files;
        create trigger tell_changed after update of status, recipe, focus, error, private, held or delete on media_files
            for each row execute function tell_media_changed('id');

        drop view live_media;
        create view live_media as select * from media_files f
            where not exists (select from deletions d where d.kind = 'media' and d.item = f.id);
        drop view live_image_queue;
        create view live_image_queue as select * from image_queue i
            where not exists (select from deletions d where d.kind = 'listings' and d.item = i.id);
    """)
