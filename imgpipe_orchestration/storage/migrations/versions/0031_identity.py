"""Named keys, and the audit, which only grows.

Revision ID: 0031
"""

from alembic import op

revision = "0031"
down_revision = "0030"


def upgrade() -> None:
    op.execute("""
        create table api_keys (
            id bigint generated always as identity primary key,
            name text not null,
            role text not null check (role in ('viewer', 'operator', 'admin')),
            hash bytea not null unique,
            created_at timestamptz not null default now(),
            created_by text not null,
            expires_at timestamptz,
            revoked_at timestamptz
        );
        create unique index api_keys_name on api_keys (name) where revoked_at is null;

        create table audit (
            id bigint generated always as identity,
            at timestamptz not null default now(),
            who text not null,
            role text,
            kind text not null,
            address text not null,
            action text not null,
            subject text not null,
            before jsonb,
            after jsonb
        ) partition by range (at);
        create index audit_id on audit (id desc);

        create function audit_refuses() returns trigger language plpgsql as $$
            begin raise exception 'The audit takes no %: its rows stay as they were written.', tg_op; end
        $$;
        create trigger audit_is_append_only before update or delete on audit
            for each row execute function audit_refuses();
        create trigger audit_is_not_emptied before truncate on audit
            for each statement execute function audit_refuses();

        -- The partition of a month, made when it is first needed: a stack may sleep over the turn of a month.
        create function audit_month(moment timestamptz) returns void language plpgsql as $$
            declare
                begins date := date_trunc('month', moment at time zone 'UTC');
                name text := 'audit_' || to_char(begins, 'YYYY_MM');
            begin
                if to_regclass(name) is null then
                    perform pg_advisory_xact_lock(hashtextextended('audit_month', 0));
                    if to_regclass(name) is null then
                        execute format(
                            'create table %I partition of audit for values from (%L) to (%L)', name,
                            begins::timestamp at time zone 'UTC', (begins + interval '1 month') at time zone 'UTC');
                        execute format(
                            'create trigger %I before truncate on %I for each statement '
                            'execute function audit_refuses()', name || '_is_not_emptied', name);
                    end if;
                end if;
            end
        $$;
        select audit_month(now()), audit_month(now() + interval '1 month');
    """)
