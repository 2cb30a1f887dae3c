"""Images by the names of their files.

Revision ID: 0029
"""

from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    # The parser of the text search would take `bowl_1.jpg` for a host, and `-1` for a number. A hyphen that begins a
    # word stays, because in a question it means "without".
    op.execute(r"""
        create function words_of_name(name text) returns text language sql immutable strict parallel safe
            return regexp_replace(name, '(\S)[-._]+', '\1 ', 'g');
        create index media_files_name on media_files
            using gin (to_tsvector('simple'::regconfig, words_of_name(original_name)));
    """)
