"""The schema and its changes, applied by `imgpipe migrate` and at every start of `imgpipe up`.

`baseline.sql` is the whole schema of the first revision; later ones change it.
"""

from functools import cache
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import BackendUnavailable

_LOCK = 0x1A6717E
"""Advisory lock of PostgreSQL under which migrations run, so that two processes cannot both migrate."""

PGVECTOR = (
    "Install it on PostgreSQL's machine, as a superuser `create extension vector` in this database, then run"
    " `imgpipe migrate`."
)


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Migrate the database of `engine` to `revision`; safe to call from several processes.

    One that a newer version of this code has migrated stays as it is.

    Raises:
        BackendUnavailable: it has no extension pgvector, and this user cannot create it; or its schema is older than
            the baseline.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with engine.begin() as connection:
        # Indexing a million rows takes longer than the limit for other statements.
        connection.execute(text("set local statement_timeout = 0"))
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        # While a change waits for a table (that is being dumped, say), all others wait behind it.
        connection.execute(text("set local lock_timeout = '60s'"))
        if revision == "head" and not behind(connection):
            return
        _refuse_older(connection)
        if lacks_pgvector(connection):
            raise BackendUnavailable(f"The database has no extension pgvector. {PGVECTOR}")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def lacks_pgvector(connection: Connection) -> bool:
    """Whether the database has no extension `vector`, and this user cannot create it."""
    return not connection.scalar(
        text(
            "select exists (select from pg_extension where extname = 'vector')"
            " or exists (select from pg_available_extension_versions where name = 'vector'"
            " and (trusted or not superuser or current_setting('is_superuser') = 'on'))"
        )
    )


def pending(engine: Engine) -> list[str]:
    """Revisions the database lacks, oldest first; empty when it is up to date, or newer than this code.

    Raises:
        BackendUnavailable: its schema is older than the baseline.
    """
    with engine.connect() as connection:
        _refuse_older(connection)
        version = _version(connection)
    return [revision for revision in _revisions() if version is None or revision > version]


def behind(connection: Connection) -> bool:
    """Whether the database lacks a revision."""
    if connection.dialect.name != "postgresql":
        return False  # MySQL or MariaDB with `pending_images`, which is not ours to migrate
    version = _version(connection)
    return version is None or version < _revisions()[-1]


def _refuse_older(connection: Connection) -> None:
    version = _version(connection)
    if version is not None and version < _revisions()[0]:
        raise BackendUnavailable(
            f"The database has revision {version}, which is too old for this version. Use an empty database (that of"
            " `imgpipe up` is in its data folder: delete that, or use another with --data), or bring it to"
            f" {_revisions()[0]} with an earlier version first."
        )


def _version(connection: Connection) -> str | None:
    if connection.scalar(text("select to_regclass('alembic_version')")) is None:
        return None
    version: str | None = connection.scalar(text("select max(version_num) from alembic_version"))
    return version


@cache
def _revisions() -> list[str]:
    """All revisions, oldest first; their names are ascending numbers."""
    return sorted(file.name[:4] for file in (Path(__file__).parent / "versions").glob("[0-9]*.py"))
