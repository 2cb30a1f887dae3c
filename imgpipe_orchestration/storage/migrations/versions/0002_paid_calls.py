"""The journal of paid calls.

Revision ID: 0002
"""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("""
        create table paid_calls (
            key text primary key,
            provider text not null,
            operation text not null,
            model text not null,
            input_hash text not null,
            parameter_hash text not null,
            state text not null check (state in ('open', 'started', 'committed')),
            owner text,
            lease_until timestamptz,
            reserved_usd numeric(12, 6) not null default 0,
            attempts integer not null default 1,
            value jsonb,
            object_key text,
            answered_by text,
            input_tokens bigint not null default 0,
            output_tokens bigint not null default 0,
            input_image_tokens bigint not null default 0,
            cached_tokens bigint not null default 0,
            units numeric(12, 3) not null default 0,
            cost_usd numeric(12, 6),
            seconds double precision,
            error text,
            created_at timestamptz not null default clock_timestamp(),
            started_at timestamptz not null default clock_timestamp(),
            committed_at timestamptz
        );
        create index paid_calls_started on paid_calls (lease_until) where state = 'started';
        create index paid_calls_input on paid_calls (input_hash);

        create table paid_call_uses (
            id bigint generated always as identity primary key,
            key text not null,
            at timestamptz not null default clock_timestamp(),
            outcome text not null check (outcome in ('bought', 'reused', 'failed', 'lost')),
            pipeline text not null,
            item text not null,
            tenant text not null default '',
            provider text not null,
            operation text not null,
            model text not null,
            standin boolean not null default false,
            input_tokens bigint not null default 0,
            output_tokens bigint not null default 0,
            cost_usd numeric(12, 6),
            seconds double precision not null default 0,
            error text
        );
        create index paid_call_uses_spent on paid_call_uses (at) include (cost_usd) where outcome = 'bought';
        create index paid_call_uses_kind on paid_call_uses (provider, operation, model, id) where outcome = 'bought';
        create index paid_call_uses_item on paid_call_uses (pipeline, item);
        create index paid_call_uses_at on paid_call_uses (at);

        create table spending_pauses (provider text primary key, until timestamptz not null, reason text not null);
    """)
