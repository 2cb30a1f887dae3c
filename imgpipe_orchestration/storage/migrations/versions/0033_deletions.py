"""What was deleted and by whom, erasures of people, purges of CDNs; views without what was deleted.

A migration that gives `media_files` or `image_queue` a column has to make their view anew.

Revision ID: 0033
"""

from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    # A row stays after the purge. It names no file and has no hash of one: `addresses` are digests, keyed with
    # SECRET_KEY, of the URLs and object keys that must not come back.
    op.execute("""
        create table deletions (
            id bigint generated always as identity primary key,
            what text not null unique,
            kind text not null,
            item bigint not null,
            user_id bigint,
            who text not null,
            why text not null,
            addresses uuid[] not null default '{}',
            queues text[] not null default '{}',
            objects integer not null default 0,
            trashed_at timestamptz not null default now(),
            purge_after timestamptz not null,
            purging_at timestamptz,
            purged_at timestamptz,
            unique (kind, item)
        );
        create index deletions_trash on deletions (kind, id desc) where purged_at is null;
        create index deletions_due on deletions (purge_after) where purging_at is null;
        create index deletions_fresh on deletions (trashed_at);
        create index deletions_user on deletions (user_id, id);
        create index deletions_addresses on deletions using gin (addresses);

        create function tell_deleted() returns trigger language plpgsql as $$
        begin
            perform pg_notify('media_changed', coalesce(new.item, old.item)::text);
            return null;
        end $$;
        create trigger tell_deleted after insert or delete on deletions for each row execute function tell_deleted();

        create table erasures (
            id bigint generated always as identity primary key,
            erasure_id uuid not null unique default gen_random_uuid(),
            user_id bigint not null,
            asked_by text not null,
            state text not null default 'running' check (state in ('running', 'done', 'failed')),
            counts jsonb not null default '{}',
            verified jsonb,
            error text,
            created_at timestamptz not null default now(),
            finished_at timestamptz
        );
        create unique index erasures_one on erasures (user_id) where state <> 'done';

        create table cdn_purges (
            id bigint generated always as identity primary key,
            tag text not null,
            created_at timestamptz not null default now()
        );

        alter table media_files add column replaced_at timestamptz;
        create index media_files_replaced on media_files (replaced_at) where replaced_at is not null;
        alter table image_queue add column listing_id uuid;
        create index image_queue_listing on image_queue (listing_id) where listing_id is not null;
        create index image_queue_user on image_queue (user_id);

        create view live_media as select * from media_files f
            where not exists (select from deletions d where d.kind = 'media' and d.item = f.id);
        create view live_image_queue as select * from image_queue i
            where not exists (select from deletions d where d.kind = 'listings' and d.item = i.id);
    """)
