"""Cron jobs, their executions, the analyses they take up; batches of our own analysis backend.

Revision ID: 0009
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute("""
        create table cron_jobs (
            id bigint generated always as identity primary key,
            job_id uuid not null unique default gen_random_uuid(),
            name text not null,
            schedule text not null,
            timezone text not null,
            external_api_get_url text not null,
            external_api_post_url text not null,
            external_api_key text not null,
            backend_api_url text not null,
            organization_id text not null,
            enabled boolean not null,
            next_run_at timestamptz,
            last_run_at timestamptz,
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now()
        );
        create index cron_jobs_due on cron_jobs (next_run_at) where next_run_at is not null;
        create trigger touch before update on cron_jobs for each row execute function touch_updated_at();

        create table vision_executions (
            id bigint generated always as identity primary key,
            execution_id uuid not null unique default gen_random_uuid(),
            cron_job_id bigint references cron_jobs on delete cascade,
            connection text,
            trigger text not null check (trigger in ('scheduled', 'manual', 'command', 'backfill')),
            reference text unique,
            status text not null default 'running' check (status in ('running', 'success', 'partial', 'failed')),
            started_at timestamptz not null default now(),
            listed_at timestamptz,
            finished_at timestamptz,
            total integer not null default 0,
            successful integer not null default 0,
            failed integer not null default 0,
            error text,
            run_id text
        );
        create index vision_executions_recent on vision_executions (cron_job_id, started_at desc);

        create table vision_analyses (
            id bigint generated always as identity primary key,
            source text not null,
            organization_id text not null,
            vision_analysis_id text not null,
            execution_id bigint references vision_executions on delete set null,
            run_code text not null default '',
            user_query text not null default '',
            created_day date not null,
            documents text not null,
            status text not null default 'waiting' check (status in ('waiting', 'submitted', 'delivered', 'failed')),
            reference uuid not null default gen_random_uuid(),
            batch_id text,
            submitted_at timestamptz,
            upload_started_at timestamptz,
            delivered_at timestamptz,
            redelivery boolean not null default false,
            images_total integer,
            images_usable integer,
            error text,
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now()
        );
        create unique index vision_analyses_identity
            on vision_analyses (source, lower(organization_id), lower(vision_analysis_id));
        create index vision_analyses_day on vision_analyses (created_day);
        create index vision_analyses_execution on vision_analyses (execution_id);
        create trigger touch before update on vision_analyses for each row execute function touch_updated_at();

        create table vision_outcomes (
            execution_id bigint not null references vision_executions on delete cascade,
            analysis_id bigint not null references vision_analyses on delete cascade,
            status text not null default 'running' check (status in ('running', 'success', 'failed')),
            batch_id text,
            error text,
            started_at timestamptz not null default now(),
            finished_at timestamptz,
            primary key (execution_id, analysis_id)
        );

        create table vision_uploads (
            id bigint generated always as identity primary key,
            image_id uuid not null unique,
            organization_id text not null,
            name text not null,
            object_key text not null,
            bytes integer not null,
            width integer not null,
            height integer not null,
            format text not null,
            created_at timestamptz not null default now()
        );
        create index vision_uploads_age on vision_uploads (created_at);

        create table vision_batches (
            id bigint generated always as identity primary key,
            batch_id uuid not null unique default gen_random_uuid(),
            reference text unique,
            organization_id text not null,
            user_query text not null,
            model text not null,
            unavailable jsonb not null default '[]',
            notes jsonb not null default '[]',
            status text not null default 'queued' check (status in ('queued', 'running', 'completed', 'failed')),
            error text,
            report_key text,
            created_at timestamptz not null default now(),
            finished_at timestamptz
        );
        create index vision_batches_age on vision_batches (created_at);

        create table vision_batch_images (
            batch_id bigint not null references vision_batches on delete cascade,
            position integer not null,
            image_id uuid not null references vision_uploads (image_id),
            description text not null default '',
            status text not null default 'waiting' check (status in ('waiting', 'done', 'failed')),
            measured jsonb,
            analysis jsonb,
            error text,
            primary key (batch_id, position)
        );
        create index vision_batch_images_image on vision_batch_images (image_id);
    """)
