"""Avatar tasks, the batches in which their people are asked for, and the people with their images.

Revision ID: 0011
"""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.execute("""
        create table generation_tasks (
            id bigint generated always as identity primary key,
            task_id text not null unique default gen_random_uuid()::text,
            status text not null default 'pending' check (status in ('pending', 'generating-data', 'data-generated',
                'generating-images', 'completed', 'failed', 'cancelled')),
            persona_count integer not null check (persona_count between 1 and 500),
            brief text not null,
            language text not null,
            style text not null,
            seed bigint not null,
            error_log text,
            waiting_for text,
            manifest_url text,
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now(),
            started_at timestamptz,
            finished_at timestamptz,
            images_removed_at timestamptz
        );
        create index generation_tasks_open on generation_tasks (updated_at)
            where status not in ('completed', 'failed', 'cancelled');
        create index generation_tasks_unwritten on generation_tasks (finished_at)
            where status = 'completed' and manifest_url is null;
        create index generation_tasks_removable on generation_tasks (finished_at)
            where status in ('failed', 'cancelled') and images_removed_at is null;
        create trigger touch before update on generation_tasks for each row execute function touch_updated_at();

        create table generation_batches (
            task_id bigint not null references generation_tasks on delete cascade,
            number integer not null,
            round integer not null,
            positions integer[] not null,
            question jsonb not null,
            answered_at timestamptz,
            cost_usd numeric(12, 6) not null default 0,
            problem text,
            primary key (task_id, number)
        );

        create table generation_results (
            id bigint generated always as identity primary key,
            task_id bigint not null references generation_tasks on delete cascade,
            position integer not null,
            firstname text,
            lastname text,
            name_key text,
            gender text,
            age integer,
            nationality text,
            occupation text,
            bio text,
            appearance text,
            status text not null default 'pending' check (status in ('pending', 'completed', 'failed', 'cancelled')),
            step smallint not null default 0 check (step between 0 and 7),
            error text,
            image_prompt text,
            base_object text,
            grid_object text,
            base_tries smallint not null default 1,
            grid_tries smallint not null default 1,
            edition integer not null default 0,
            split jsonb,
            images jsonb not null default '{}',
            quality jsonb not null default '{}',
            model text,
            standin boolean not null default false,
            cost_usd numeric(12, 6) not null default 0,
            base_image_url text,
            image_1_url text,
            image_2_url text,
            image_3_url text,
            image_4_url text,
            created_at timestamptz not null default now(),
            updated_at timestamptz not null default now(),
            finished_at timestamptz,
            unique (task_id, position),
            unique (task_id, name_key)
        );
        create index generation_results_finished on generation_results (finished_at);
        create trigger touch before update on generation_results for each row execute function touch_updated_at();
    """)
