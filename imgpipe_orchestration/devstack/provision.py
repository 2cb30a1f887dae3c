"""`python -m imgpipe_orchestration.devstack.provision`: databases, schema, buckets, indexes, before the services start.

It prints MEDIA_FIRST_DAY. In a process of its own, so that the supervisor, which lives for weeks, does not load these
modules. Safe to run again.
"""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import Connection, Engine, inspect, make_url, text
from sqlalchemy.exc import OperationalError

from imgpipe_orchestration.auto_marker.store import create_indexes
from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError
from imgpipe_orchestration.settings import Settings, load
from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.telemetry.redaction import redact
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

_OLDEST = """
    select min(day) from (
        select min(upload_day) as day from media_files
        union all select (min(created_at) at time zone 'UTC')::date from pending_images
            where created_at between '2020-01-02' and now()
        union all select (min(created_at) at time zone 'UTC')::date from image_queue
        union all select (min(created_at) at time zone 'UTC')::date from generation_tasks
    ) as days
"""
# Another program writes pending_images: a wrong clock or '-infinity' must not decide. 2020 is the setting's default.


def provision(settings: Settings) -> str:
    """Create databases, schema, buckets and indexes that are missing; returns `first_day`.

    Raises:
        BackendUnavailable: the database, the object store or MongoDB cannot be reached.
    """
    with _named("DATABASE_URL"), _database(settings.database_url) as engine:
        migrations.upgrade(engine)
        with engine.connect() as connection:
            day = first_day(connection)
    with _named("DAGSTER_PG_URL"), _database(settings.dagster_pg_url) as engine:
        if not {"runs", "event_logs", "jobs"} <= set(inspect(engine).get_table_names()):  # one of each of its storages
            from dagster_postgres import DagsterPostgresStorage  # takes a second

            DagsterPostgresStorage(settings.dagster_pg_url)
    with closing(Services(settings)) as services:
        with _named("S3_ENDPOINT"):
            for name in settings.buckets:
                services.objects.bucket(name).ensure()
        if settings.mongodb_url:
            with _named("MONGODB_URL"):
                for problem in create_indexes(services.documents):
                    log.warning("index not created", extra={"index": problem})
    return day


def first_day(connection: Connection) -> str:
    """The day (UTC) before the oldest upload, or before today when there is none: a backfill over two days can be tried
    at once. Dagster shows every day from then on that has no images as missing.
    """
    oldest: date = connection.scalar(text(_OLDEST)) or datetime.now(UTC).date()
    return (oldest - timedelta(days=1)).isoformat()


@contextmanager
def _named(variable: str) -> Iterator[None]:
    """Put the name of the setting in front of an error's message."""
    try:
        yield
    except ImgpipeError as error:
        told = f"{variable}: {error.public} {error.detail or ''}".strip()
        raise BackendUnavailable(redact(told.partition("\n")[0])) from error


@contextmanager
def _database(url: str) -> Iterator[Engine]:
    """Connections to the database, which is made if it is missing, with the schema of the URL's search path."""
    parsed = make_url(url)
    engine = connect(url, pool_size=1)
    try:
        engine.connect().close()
    except OperationalError as error:
        if "does not exist" not in str(error):
            raise BackendUnavailable(f"No connection to {parsed.render_as_string()}: {error.orig}") from error
        server = connect(parsed.set(database="postgres").render_as_string(hide_password=False), pool_size=1)
        with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            name = connection.dialect.identifier_preparer.quote(parsed.database or "")
            connection.execute(text(f"create database {name}"))
        server.dispose()
    if "search_path=dagster" in str(parsed.query.get("options", "")):
        with engine.begin() as connection:
            connection.execute(text("create schema if not exists dagster"))
    yield engine
    engine.dispose()


if __name__ == "__main__":
    try:
        sys.stdout.write(provision(load()))
    except ImgpipeError as failure:
        sys.exit(failure.public)
