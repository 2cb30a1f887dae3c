"""Checks of the settings, and of where data are kept: the disk, the databases, the buckets."""

from __future__ import annotations

import shutil
from contextlib import suppress
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from imgpipe_orchestration.cli.diagnosis.check import MIGRATE, Bad, Note
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.operations.startup import check_settings
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET, misspelled
from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.rows import connect, transaction
from imgpipe_orchestration.web.origins import is_loopback

_OF_CLIENTS = ("public_base_url", "s3_public_endpoint", "s3_upload_endpoint")
"""Settings of which clients get addresses."""
_ENOUGH_DISK_BYTES = 2 * 1024**3
_PROBE, _PROBE_BYTES = "imgpipe_doctor", 100_000
"""An object that is written, read and deleted again."""


def settings(services: Services) -> str:
    check_settings(services.settings)
    if said := misspelled():
        raise Note("; ".join(said), "Fix the name and start again, or remove the variable.")
    return "all valid"


def addresses(services: Services) -> str:
    settings = services.settings
    of_clients = {name.upper(): getattr(settings, name) for name in _OF_CLIENTS}
    inside = [name for name, url in of_clients.items() if is_loopback(urlsplit(url).hostname or "")]
    if settings.production and inside:
        raise Note(f"clients get addresses that only work on this machine: {', '.join(inside)}")
    return ", ".join(sorted({url for url in of_clients.values() if url}))


def sign_in(services: Services) -> str:
    settings = services.settings
    if settings.oidc_issuer:
        from imgpipe_orchestration.identity.oidc import Provider

        Provider(settings).begin("/")
        return f"people sign in at {settings.oidc_issuer}"
    if settings.production:
        said = "everybody signs in with ADMIN_API_KEY: all are admins, and the audit cannot tell them apart"
        raise Note(said, "Set OIDC_ISSUER, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET and OIDC_ROLES.")
    return "not needed in development"


def keys(services: Services) -> str:
    names = [name.upper() for name, value in services.settings.model_dump().items() if value == DEVELOPMENT_SECRET]
    if names:
        raise Note(f"development keys in use: {', '.join(names)}")
    return "all set"


def disk(services: Services) -> str:
    folder = services.settings.imgpipe_data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    seen = f"{free / 1024**3:.1f} GB free at {folder}"
    if free < _ENOUGH_DISK_BYTES:
        raise Bad(seen)
    return seen


def database(services: Services) -> str:
    with transaction(services.engine) as connection:
        version = connection.scalar(text("show server_version"))
        vector = connection.scalar(text("select extversion from pg_extension where extname = 'vector'"))
        without = migrations.lacks_pgvector(connection)
        _write(connection)
    lacking = migrations.pending(services.engine)
    if lacking and without:
        raise Bad(f"PostgreSQL {version}; the database has no extension pgvector", migrations.PGVECTOR)
    if lacking:
        raise Bad(f"PostgreSQL {version}; the schema lacks {', '.join(lacking)}", MIGRATE)
    return f"PostgreSQL {version}, schema up to date, pgvector {vector or 'not installed'}"


def _write(connection: Connection) -> None:
    """Write a little, which goes with the transaction: on a full disk a server still answers whoever reads."""
    if connection.scalar(text("select has_database_privilege(current_database(), 'temporary')")):
        rows = "select repeat('x', 100) as x from generate_series(1, 1000)"
        connection.execute(text(f"create temporary table imgpipe_doctor_writes on commit drop as {rows}"))


def pending_images(services: Services) -> str:
    with transaction(services.pending_engine) as connection:
        connection.execute(text("select id from pending_images limit 1"))
    return f"readable ({services.pending_engine.dialect.name})"


def dagster_database(services: Services) -> str:
    engine = connect(services.settings.dagster_pg_url, pool_size=1, setting="DAGSTER_PG_URL")
    try:
        with transaction(engine) as connection:
            _write(connection)
    finally:
        engine.dispose()
    return "answers"


def bucket(name: str, services: Services) -> str:
    from botocore.exceptions import ClientError

    there = services.objects.bucket(name)
    try:
        there.store.client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        raise Bad("does not exist", "Create it, or fix the setting that names it.") from error
    # On a full disk a store still answers whoever reads; and objects are read and written by another library, with
    # certificates of its own.
    there.put(_PROBE, bytes(_PROBE_BYTES), content_type="application/octet-stream")
    with suppress(NotFound):  # somebody else asks the doctor as well
        there.get(_PROBE)
    there.delete(_PROBE)
    return "exists and is writable"


def mongo(services: Services) -> str:
    if not services.settings.mongodb_url:
        raise Note("not configured: the auto-marker has nothing to read")
    from imgpipe_orchestration.auto_marker.store import missing_indexes

    services.documents.ping()
    missing = missing_indexes(services.documents)
    if missing:
        raise Note(
            f"answers, and lacks {'; '.join(missing)}",
            "The auto-marker's next run creates them, unless it is not allowed to, or two image_config documents name "
            "the same customer.",
        )
    return "answers, with every index the auto-marker needs"
