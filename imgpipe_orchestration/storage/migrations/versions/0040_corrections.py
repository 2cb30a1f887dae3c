"""What people correct in an analysis, which wins over what models find.

A trigger applies it, so that nothing which writes an analysis has to know. `corrected` holds for each column the value,
who gave it and when, and what the model found, which comes back when the correction is taken away.

Revision ID: 0040
"""

from alembic import op

revision = "0040"
down_revision = "0039"


def upgrade() -> None:
    op.execute("""
        alter table media_ai_analysis add column corrected jsonb not null default '{}';
        create function keep_corrections() returns trigger language plpgsql as $$
        declare
            name text; given jsonb; found jsonb; given_back jsonb := '{}'; kept jsonb := '{}';
            row_ jsonb := to_jsonb(new);
        begin
            for name, given in select * from jsonb_each(old.corrected) loop
                if not new.corrected ? name then
                    given_back := given_back || jsonb_build_object(name, given -> 'found');
                end if;
            end loop;
            for name, given in select * from jsonb_each(new.corrected) loop
                found := row_ -> name;
                if old.corrected ? name and found = old.corrected -> name -> 'value' then
                    found := old.corrected -> name -> 'found';
                end if;
                kept := kept || jsonb_build_object(name, given || jsonb_build_object('found', found));
                given_back := given_back || jsonb_build_object(name, given -> 'value');
            end loop;
            new.corrected := kept;
            return jsonb_populate_record(new, given_back);
        end $$;
        create trigger keep_corrections before update on media_ai_analysis for each row
            when (old.corrected <> '{}' or new.corrected <> '{}') execute function keep_corrections();
        create index media_ai_analysis_corrected on media_ai_analysis (media_id) where corrected <> '{}';
    """)
