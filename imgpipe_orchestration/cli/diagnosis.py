"""What `imgpipe doctor` looks at: settings and disk, databases and buckets, the project's own processes, the partners.

Each function returns what it saw when all is well, and raises otherwise.
"""

import shutil
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from urllib.parse import urlsplit

import requests
from sqlalchemy import Connection, text

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.operations.startup import check_settings, misspelled
from imgpipe_orchestration.partners.models import Provider
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET
from imgpipe_orchestration.storage import heartbeats, migrations
from imgpipe_orchestration.storage.rows import connect, transaction
from imgpipe_orchestration.web.auth import is_loopback
from imgpipe_orchestration.wiring.services import Services

MIGRATE = "Run `imgpipe migrate`."
TIMEOUT_SECONDS = 9
"""Longer than `GET /health` takes to report a frozen server (`health.ANSWER_SECONDS`)."""
_OF_CLIENTS = ("public_base_url", "s3_public_endpoint", "s3_upload_endpoint")
"""Settings of which clients get addresses."""
_ENOUGH_DISK_BYTES = 2 * 1024**3
_PROBE, _PROBE_BYTES = "imgpipe_doctor", 100_000
"""An object that is written, read and deleted again."""


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # works, and somebody should know
    BAD = "bad"  # does not work


class Bad(Exception):
    """Ends a check; `do` replaces the check's usual advice."""

    verdict = Verdict.BAD

    def __init__(self, seen: str, do: str = "") -> None:
        super().__init__(seen)
        self.do = do


class Note(Bad):
    """Ends a check of what works."""

    verdict = Verdict.NOTE


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
        needed = {"OIDC_CLIENT_ID": settings.oidc_client_id, "OIDC_ROLES": settings.oidc_roles.strip("{ }")}
        if empty := " and ".join(name for name, value in needed.items() if not value):
            raise Bad(f"nobody can sign in without {empty}", f"Set {empty}.")
        from imgpipe_orchestration.identity.oidc import Provider

        Provider(settings).begin()
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
    if free < _ENOUGH_DISK_BYTES:
        raise Bad(f"{free / 1024**3:.1f} GB free at {folder}")
    return f"{free / 1024**3:.1f} GB free at {folder}"


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
    from imgpipe_orchestration.storage.documents import Refused

    services.documents.ping()
    try:
        missing = missing_indexes(services.documents)
    except Refused:
        raise Note("answers; its user may not list indexes, so some may be missing") from None
    if missing:
        raise Note(
            f"answers, and lacks {'; '.join(map(str, missing))}",
            "The auto-marker's next run creates them, unless it is not allowed to, or two image_config documents name "
            "the same customer.",
        )
    return "answers, with every index the auto-marker needs"


def server(name: str, path: str, services: Services) -> str:
    settings = services.settings
    # Neither a stack nor a person has named it: at its default another stack may answer.
    if name not in settings.model_fields_set and not settings.production:
        raise Bad(f"not checked: no stack runs on this folder, and {name.upper()} is not set")
    url = getattr(settings, name) + path
    answer = requests.get(url, timeout=TIMEOUT_SECONDS)
    if answer.status_code != 200:
        of_backends = name == "gateway_url" and answer.status_code == 503 and '"checks"' in answer.text
        do = "The gateway itself is well: look at what it names." if of_backends else ""
        raise Bad(f"{url} answered {answer.status_code}: {answer.text[:500]}", do)
    if urlsplit(answer.url).path != urlsplit(url).path:
        raise Note(f"{url} leads to a sign-in at {answer.url}; nothing behind it was checked")
    return f"{url} answers"


def dagster_ui(services: Services) -> str:
    """Whether it answers, and what somebody has switched off in it: nothing else says what the work waits for."""
    seen = server("dagster_url", "/server_info", services)
    query = """{instance {concurrencyLimits {concurrencyKey limit}} repositoriesOrError {... on RepositoryConnection {
        nodes {sensors {name state: sensorState {status}} schedules {name state: scheduleState {status}}}}}}"""
    answer = requests.post(f"{services.settings.dagster_url}/graphql", json={"query": query}, timeout=TIMEOUT_SECONDS)
    told = answer.json()["data"]
    off = [f"pool {one['concurrencyKey']}" for one in told["instance"]["concurrencyLimits"] if not one["limit"]]
    for code in told["repositoriesOrError"].get("nodes", []):
        off += [one["name"] for one in code["sensors"] + code["schedules"] if one["state"]["status"] == "STOPPED"]
    if off:
        do = "Their work waits. Switch them on in the Dagster UI: Automation; pools in Deployment > Concurrency."
        raise Note(f"switched off in it: {', '.join(off)}", do)
    return seen


def daemon(services: Services) -> str:
    """By the heartbeat of the media pipeline's sensor: a fresh one proves that the daemon runs, the code is loaded and
    the sensor is on."""
    last = heartbeats.last(services.engine, heartbeats.DAEMON)
    if last is not None and last.age <= heartbeats.DAEMON_SECONDS:
        return f"ticked {last.age:.0f} s ago"
    stack = stackfile.read(services.settings.imgpipe_data_dir)
    since = datetime.now(UTC) - timedelta(seconds=heartbeats.DAEMON_SECONDS)
    if stack and datetime.fromisoformat(stack.started_at) > since:
        raise Note("has not ticked yet, which takes half a minute after a start")
    raise Bad("has never ticked" if last is None else f"has not ticked for {last.age:.0f} s")


def workers(services: Services) -> str:
    settings = services.settings
    if not settings.celery_broker_url:
        return "not needed: the daemon starts every run on its own machine"
    from celery import Celery

    from imgpipe_orchestration.dagster_side.celery_launcher import over_tls
    from imgpipe_orchestration.dagster_side.run_tags import QUEUES

    broker, seconds = settings.celery_broker_url, 5
    patience = {"max_retries": 3, "socket_connect_timeout": seconds, "socket_timeout": seconds}
    with Celery(broker=broker, config_source={**over_tls(broker), "broker_transport_options": patience}) as app:
        answers = app.control.inspect(timeout=2).active_queues() or {}
    taken = {queue["name"] for queues in answers.values() for queue in queues}
    if lacking := [queue for queue in QUEUES if queue not in taken]:
        raise Bad(f"{len(answers)} answer, none of them takes runs of {', '.join(lacking)}")
    return f"{len(answers)} answer, every queue is served"


def openai(services: Services) -> str:
    without = "images get measured fields only, avatars cannot be made"
    asked = _speaking(services, "openai-responses", "openai-chat", without=without)
    from imgpipe_orchestration.partners.openai import OpenAIClient
    from imgpipe_orchestration.partners.openai_answers import server_name
    from imgpipe_orchestration.partners.retry import RetryPolicy

    # The same client as in the runs: a proxy or certificate that fails there fails here too.
    make = partial(OpenAIClient, timeout=TIMEOUT_SECONDS, policy=RetryPolicy(attempts=1))
    for name, provider in asked.items():
        key = services.models.key(name) or "none"
        with closing(make(key, base_url=provider.base_url, name=server_name(name))) as client:
            client.models()
    return f"{_said(asked, 'accepts the key')}; `imgpipe models check` asks each model"


def _speaking(services: Services, *dialects: str, without: str) -> dict[str, Provider]:
    found = {name: one for name, one in services.models.providers.items() if one.dialect in dialects}
    if not found:
        raise Note(f"not configured: {without}")
    return found


def _said(providers: dict[str, Provider], what: str) -> str:
    return "; ".join(f"{provider.base_url} {what}" for provider in providers.values())


def google_vision(services: Services) -> str:
    asked = _speaking(services, "google-vision", without="images get no objects and no text")
    for name, provider in asked.items():
        # An empty batch is refused as invalid (400) when the key is good, and costs nothing.
        url, headers = f"{provider.base_url}/v1/images:annotate", {"X-Goog-Api-Key": services.models.key(name)}
        answer = requests.post(url, json={"requests": []}, headers=headers, timeout=TIMEOUT_SECONDS)
        if answer.status_code not in {200, 400} or "API_KEY_INVALID" in answer.text:
            raise Bad(f"{provider.base_url} answered {answer.status_code}")
    return _said(asked, "accepts the key")


def flowise(services: Services) -> str:
    asked = _speaking(services, "flowise", without="avatars cannot be made")
    for provider in asked.values():
        reach_flowise(provider)
    return _said(asked, "answers")


def reach_flowise(provider: Provider) -> None:
    """Take any answer but a 5xx for a running server: some have nothing at their root, or want a key there."""
    with requests.get(provider.base_url, timeout=TIMEOUT_SECONDS, stream=True) as answer:
        if answer.status_code >= 500:
            raise Bad(f"{provider.base_url} answered {answer.status_code}")
