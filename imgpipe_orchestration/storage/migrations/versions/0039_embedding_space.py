"""Whose vectors the search's column holds, and those of a rebuild.

Revision ID: 0039
"""

from alembic import op

revision = "0039"
down_revision = "0038"


def upgrade() -> None:
    # An empty `model` is that of the first vector to come. The last one bought has made those that are there.
    op.execute("""
        create table embedding_space (
            one boolean primary key default true check (one),
            model text not null default '',
            dimensions integer not null default 1536,
            next_model text,
            next_dimensions integer
        );
        insert into embedding_space (model) values (coalesce((
            select provider || ':' || model from paid_calls where operation = 'embedding' and state = 'committed'
            order by committed_at desc limit 1), ''));

        create function outdate_next_embedding() returns trigger language plpgsql as $$
        begin
            if new.embedding is distinct from old.embedding then new.embedding_next := null; end if;
            return new;
        end $$;
    """)
