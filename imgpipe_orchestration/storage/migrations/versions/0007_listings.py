"""The listings' queue, the answers given under an Idempotency-Key, and the jobs that people start and stop.

Revision ID: 0007
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("""
        create table image_queue (
            id bigint generated always as identity primary key,
            public_id uuid not null unique,
            listing_title text not null,
            file_name text not null unique,
            status text not null default 'pending' check (status in ('pending', 'processed', 'retry', 'failed')),
            error text,
            retries integer not null default 0,
            max_retries integer not null,
            user_id bigint,
            original_name text not null,
            original_key text not null unique,
            content_type text not null,
            bytes integer not null,
            width integer not null,
            height integer not null,
            webp_sha256 text,
            webp_bytes integer,
            webp_width integer,
            webp_height integer,
            webp_frames integer,
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now(),
            processed_at timestamptz
        );
        create index image_queue_open on image_queue (status, id) where status <> 'processed';

        create table listing_answers (
            uploader text not null,
            idempotency_key text not null,
            request_sha256 text not null,
            answer json not null,
            created_at timestamptz not null default now(),
            primary key (uploader, idempotency_key)
        );
        create index listing_answers_created on listing_answers (created_at);

        create table job_definitions (
            id text primary key,
            name text not null,
            description text not null,
            type text not null,
            interval text not null,
            payload jsonb not null default '{}',
            enabled boolean not null default true,
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now(),
            last_checked_at timestamptz,
            last_started_at timestamptz,
            last_finished_at timestamptz,
            last_run_id text,
            last_result jsonb
        );
        insert into job_definitions (id, name, description, type, interval, payload) values (
            'process-image-queue', 'Process Image Queue', 'Process pending images in queue', 'process_images', '10s',
            '{"batch_size": 10}');
    """)
