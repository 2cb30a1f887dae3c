"""Search in the media: words, meaning, colours, looks.

The words are a generated column and the colours follow by trigger, so that nothing which writes an analysis has to know
of the search.

Revision ID: 0015
"""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.execute(r"""
        alter table media_ai_analysis add column words tsvector generated always as (
            setweight(to_tsvector('english'::regconfig,
                coalesce(alt_text, '') || ' ' || coalesce(subject_matter, '')), 'A') ||
            setweight(to_tsvector('english'::regconfig, coalesce(style_classification, '') || ' ' ||
                coalesce(medium_detected, '') || ' ' || coalesce(brand_name, '')), 'B') ||
            setweight(to_tsvector('english'::regconfig, coalesce(labels, '[]')), 'B') ||
            setweight(to_tsvector('english'::regconfig, coalesce(mood_keywords, '[]')), 'C') ||
            setweight(to_tsvector('english'::regconfig, coalesce(detected_objects, '[]')), 'C') ||
            setweight(to_tsvector('english'::regconfig, left(coalesce(detected_text, ''), 50000)), 'C')
        ) stored;
        create index media_ai_analysis_words on media_ai_analysis using gin (words);
        create index media_ai_analysis_meaning on media_ai_analysis using hnsw (embedding vector_cosine_ops);
        create index media_ai_analysis_looks on media_ai_analysis using hnsw ((phash::bit(64)) bit_hamming_ops);

        -- Oklab (Ottosson 2020): distances in it are about what people see.
        create function oklab_of(hex text) returns vector language plpgsql immutable strict parallel safe as $$
        declare
            c float8[] := '{}';
            v float8;
            l float8; m float8; s float8;
        begin
            if hex !~ '^#[0-9a-fA-F]{6}$' then return null; end if;
            for i in 0..2 loop
                v := ('x' || substr(hex, 2 + 2 * i, 2))::bit(8)::int / 255.0;
                c := c || case when v <= 0.04045 then v / 12.92 else power((v + 0.055) / 1.055, 2.4) end;
            end loop;
            l := cbrt(0.4122214708 * c[1] + 0.5363325363 * c[2] + 0.0514459929 * c[3]);
            m := cbrt(0.2119034982 * c[1] + 0.6806995451 * c[2] + 0.1073969566 * c[3]);
            s := cbrt(0.0883024619 * c[1] + 0.2817188376 * c[2] + 0.6299787005 * c[3]);
            return array[
                0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
                1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
                0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s]::real[]::vector;
        end $$;

        create table media_colours (
            media_id bigint not null references media_files on delete cascade,
            place smallint not null,
            lab vector(3) not null,
            share real not null,
            primary key (media_id, place)
        );
        create index media_colours_lab on media_colours using hnsw (lab vector_l2_ops);

        create function media_colours_of(media bigint, colours jsonb) returns void language sql as $$
            insert into media_colours
            select media, place, oklab_of(colour ->> 'hex'), coalesce((colour ->> 'share')::real, 0)
            from jsonb_array_elements(case when jsonb_typeof(colours) = 'array' then colours else '[]' end)
                with ordinality as c (colour, place)
            where jsonb_typeof(colour) = 'object' and oklab_of(colour ->> 'hex') is not null
        $$;

        create function media_colours_follow() returns trigger language plpgsql as $$
        begin
            delete from media_colours where media_id = new.media_id;
            perform media_colours_of(new.media_id, new.dominant_colors);
            return null;
        end $$;
        create trigger colours_new after insert on media_ai_analysis
            for each row execute function media_colours_follow();
        create trigger colours_changed after update of dominant_colors on media_ai_analysis
            for each row when (old.dominant_colors is distinct from new.dominant_colors)
            execute function media_colours_follow();

        select media_colours_of(media_id, dominant_colors) from media_ai_analysis;
    """)
