"""The checks of `imgpipe doctor`: whether every setting is valid and everything the project depends on can be reached.

Each check looks at one thing, changes nothing, buys nothing, and says what to do when it fails.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import ImgpipeError, NotMigrated, OutOfSpace, SettingsError
from imgpipe_orchestration.redaction import redact
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import DEVELOPMENT_SECRET, Settings, misspelled
from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.rows import connect, transaction

_TIMEOUT_SECONDS = 9
"""Longer than `GET /health` takes to report a frozen server (`health.ANSWER_SECONDS`)."""
_SILENT_SECONDS = 180
"""Without a heartbeat for so long the daemon is down. It writes one every 30 s; Dagster itself waits half an hour."""
_AHEAD_SECONDS = 60
"""With a heartbeat so far ahead the daemon waits for a clock that was set back, or two machines' clocks differ."""
_ENOUGH_DISK_BYTES = 2 * 1024**3
_MIGRATE = "Run `imgpipe migrate`."
_REMEDIES = {NotMigrated: _MIGRATE, OutOfSpace: "Make room on its disk; work waits and goes on by itself."}


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"  # works, and somebody should know
    BAD = "bad"  # does not work


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was seen, and what to do about it."""

    what: str
    verdict: Verdict
    seen: str
    do: str = ""


class _NotOk(Exception):
    """Ends a check with another verdict than OK; `do` replaces the check's usual advice."""

    verdict: Verdict

    def __init__(self, seen: str, do: str = "") -> None:
        super().__init__(seen)
        self.do = do


class _Note(_NotOk):
    verdict = Verdict.NOTE


class _Bad(_NotOk):
    verdict = Verdict.BAD


@dataclass(frozen=True)
class _Check:
    what: str
    do: str
    """Advice for when `look` raises."""
    look: Callable[[Services], str]
    """Returns what it saw when all is well."""

    def __call__(self, services: Services) -> Finding:
        try:
            return Finding(self.what, Verdict.OK, self.look(services))
        except _NotOk as ended:
            return Finding(self.what, ended.verdict, str(ended), ended.do or self.do)
        except ImgpipeError as error:
            do = next((do for kind, do in _REMEDIES.items() if isinstance(error, kind)), self.do)
            return Finding(self.what, Verdict.BAD, redact(f"{error.public} {error.detail or ''}".strip()), do)
        except requests.RequestException as error:
            where = redact(str(error.request.url)) if error.request is not None else "there"
            return Finding(self.what, Verdict.BAD, f"no answer from {where} ({type(error).__name__})", self.do)
        except Exception as error:  # drivers raise all kinds of exceptions
            return Finding(self.what, Verdict.BAD, redact(f"{type(error).__name__}: {error}"), self.do)


def check_settings(settings: Settings) -> None:
    """Check the settings that `Settings` does not parse itself, at the start and not when they are first needed.

    Raises:
        SettingsError: one cannot be used.
    """
    from imgpipe_orchestration.listings.steps import options_of
    from imgpipe_orchestration.partners.prices import parse_prices
    from imgpipe_orchestration.partners.ssrf import AllowList

    options_of(settings)
    parse_prices(settings.model_prices)
    AllowList.parse(settings.allowed_private_hosts)
    for name in ("c2pa_certificate", "c2pa_private_key"):
        if (path := getattr(settings, name)) and not Path(path).is_file():
            raise SettingsError(f"{name.upper()}: there is no file {path}", field=name.upper())
    if settings.log_file and not (folder := Path(settings.log_file).absolute().parent).is_dir():
        raise SettingsError(f"LOG_FILE: there is no folder {folder}", field="LOG_FILE")


def diagnose(settings: Settings, *, patience: float = 15) -> list[Finding]:
    """Run every check, all at the same time; the findings are in a fixed order.

    Args:
        patience: seconds after which a check that has not ended is BAD: S3's client retries a frozen server for 90 s.
    """
    services = Services(settings)
    checks = _checks(settings)
    found: dict[str, Finding] = {}

    def look(check: _Check) -> None:
        found[check.what] = check(services)

    _prepare(services)
    # Daemon threads, because Python waits at its end for those of an executor, also for one that hangs.
    threads = [threading.Thread(target=look, args=[check], daemon=True) for check in checks]
    try:
        for thread in threads:
            thread.start()
        until = time.monotonic() + patience
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        silent = f"has not answered for {patience:g} seconds"
        return [found.get(one.what) or Finding(one.what, Verdict.BAD, silent, one.do) for one in checks]
    finally:
        services.close()


def _prepare(services: Services) -> None:
    """Import and make what the checks use. On a busy machine that takes longer than servers take to answer, and all of
    them would be called silent."""
    with suppress(Exception):  # its checks will say what is wrong with it
        _ = services.media_bucket.store.client
    if services.settings.mongodb_url:
        import pymongo  # noqa: F401
    if services.settings.openai_api_key:
        from imgpipe_orchestration.partners.openai_warmup import warm_up

        warm_up()


def _checks(settings: Settings) -> list[_Check]:
    ours = "." if settings.production else "; `imgpipe up` starts one when it is not set."

    def start(part: str) -> str:
        # In production it may be a service of its own, beside which `imgpipe up` would start a second daemon.
        if settings.production:
            return "Start its service; if it runs, read its log."
        return f"Start `imgpipe up`; if it runs, read logs/{part}.log in the data folder."

    checks = [
        _Check("settings", "Mend it and start again; docs/settings.md has its form.", _settings),
        _Check("keys", "Set your own, and IMGPIPE_ENV=production, before anybody else can connect.", _keys),
        _Check("disk", "Free some space: PostgreSQL refuses writes on a full disk.", _disk),
        _Check("database", f"Check DATABASE_URL{ours}", _database),
        _Check("pending_images", "Check PENDING_IMAGES_DATABASE_URL.", _pending_images),
        _Check("Dagster's database", "Check DAGSTER_PG_URL.", _dagster_database),
        *(
            _Check(f"bucket {name}", f"Check S3_ENDPOINT and its keys{ours}", partial(_bucket, name))
            for name in settings.buckets
        ),
        _Check("MongoDB", f"Check MONGODB_URL{ours}", _mongo),
        _Check("gateway", start("gateway"), _gateway),
        _Check("Dagster UI", start("dagster-webserver"), _dagster_ui),
        _Check(
            "Dagster daemon",
            f"Without it no sensor ticks and no run starts. {start('dagster-daemon')}",
            _daemon,
        ),
        _Check("sensors and schedules", start("code-server"), _automation),
        _Check(
            "workers",
            "Check CELERY_BROKER_URL; start a worker for the queues that lack one (docs/scaling.md).",
            _workers,
        ),
        _Check("OpenAI", "Check OPENAI_API_KEY and OPENAI_BASE_URL.", _openai),
        _Check("Google Vision", "Check GOOGLE_VISION_API_KEY and GOOGLE_VISION_ENDPOINT.", _google_vision),
        _Check("Flowise", "Check FLOWISE_BASE_URL.", _flowise),
    ]
    if settings.background_model:
        how = "Check BACKGROUND_MODEL; docs/imaging.md (Logos) says how a model is installed."
        checks.append(_Check("background model", how, _background_model))
    return checks


def _settings(services: Services) -> str:
    check_settings(services.settings)
    if said := misspelled():
        raise _Note("; ".join(said), "Mend the name and start again, or take the variable away.")
    return "every one can be used"


def _keys(services: Services) -> str:
    names = [name.upper() for name, value in services.settings.model_dump().items() if value == DEVELOPMENT_SECRET]
    if names:
        raise _Note(f"development keys in use: {', '.join(names)}")
    return "all set"


def _disk(services: Services) -> str:
    folder = services.settings.imgpipe_data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    seen = f"{free / 1024**3:.1f} GB free at {folder}"
    if free < _ENOUGH_DISK_BYTES:
        raise _Bad(seen)
    return seen


def _database(services: Services) -> str:
    with transaction(services.engine) as connection:
        version = connection.scalar(text("show server_version"))
        vector = connection.scalar(text("select extversion from pg_extension where extname = 'vector'"))
        without = migrations.lacks_pgvector(connection)
        _write(connection)
    lacking = migrations.pending(services.engine)
    if lacking and without:
        raise _Bad(f"PostgreSQL {version}; the database has no extension pgvector", migrations.PGVECTOR)
    if lacking:
        raise _Bad(f"PostgreSQL {version}; the schema lacks {', '.join(lacking)}", _MIGRATE)
    return f"PostgreSQL {version}, schema up to date, pgvector {vector or 'not installed'}"


def _write(connection: Connection) -> None:
    """Write a little, which goes with the transaction: on a full disk a server still answers whoever reads."""
    if connection.scalar(text("select has_database_privilege(current_database(), 'temporary')")):
        rows = "select repeat('x', 100) as x from generate_series(1, 1000)"
        connection.execute(text(f"create temporary table imgpipe_doctor_writes on commit drop as {rows}"))


def _pending_images(services: Services) -> str:
    with transaction(services.pending_engine) as connection:
        connection.execute(text("select id from pending_images limit 1"))
    return f"readable ({services.pending_engine.dialect.name})"


def _dagster_database(services: Services) -> str:
    engine = connect(services.settings.dagster_pg_url, pool_size=1, setting="DAGSTER_PG_URL")
    try:
        with transaction(engine) as connection:
            _write(connection)
    finally:
        engine.dispose()
    return "answers"


def _bucket(name: str, services: Services) -> str:
    from botocore.exceptions import ClientError

    try:
        services.objects.bucket(name).store.client.head_bucket(Bucket=name)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        raise _Bad("there is no such bucket", "Make it, or mend the setting that names it.") from error
    return "there"


def _mongo(services: Services) -> str:
    if not services.settings.mongodb_url:
        raise _Note("not configured: the auto-marker has nothing to read")
    from imgpipe_orchestration.auto_marker.store import missing_indexes

    services.documents.ping()
    missing = missing_indexes(services.documents)
    if missing:
        raise _Note(
            f"answers, and lacks {'; '.join(missing)}",
            "The auto-marker's next run creates them, unless it is not allowed to, or two image_config documents name "
            "the same customer.",
        )
    return "answers, with every index the auto-marker needs"


def _gateway(services: Services) -> str:
    url = f"{services.settings.gateway_url}/health"
    answer = requests.get(url, timeout=_TIMEOUT_SECONDS)
    if answer.status_code == 503:
        with suppress(ValueError, LookupError, TypeError, AttributeError):  # a proxy's 503 has another body
            checks: dict[str, str] = answer.json()["checks"]
            well = {"ok", "not configured", checks.pop("last_tick", "")}
            if down := [f"{what}: {said}" for what, said in checks.items() if said not in well]:
                raise _Bad(
                    f"{url} answers, and says {'; '.join(down)}", "The gateway itself works: mend what it names."
                )
    return _answered(url, answer)


def _dagster_ui(services: Services) -> str:
    url = f"{services.settings.dagster_url}/server_info"
    return _answered(url, requests.get(url, timeout=_TIMEOUT_SECONDS))


def _answered(url: str, answer: requests.Response) -> str:
    if answer.status_code != 200:
        raise _Bad(f"{url} answered {answer.status_code}: {answer.text[:200]}")
    return f"{url} answers"


def _daemon(services: Services) -> str:
    query = "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy lastHeartbeatTime}}}}"
    statuses = _told_by_dagster(services.settings, query)["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = [status for status in statuses if status["required"]]
    # The latest heartbeat of all daemons: one with much to do writes its own late.
    silent = time.time() - max((status["lastHeartbeatTime"] or 0 for status in required), default=0)
    ill = [status["daemonType"] for status in required if not status["healthy"] or silent > _SILENT_SECONDS]
    if ill:
        raise _Bad(f"no heartbeat of {', '.join(ill).lower()}")
    if -silent > _AHEAD_SECONDS:
        raise _Bad(
            f"its last heartbeat is {-silent:.0f} s ahead of this machine's clock",
            "Where the clock was set back, start the daemon again: it waits for the time it was; else set the clocks.",
        )
    return f"{len(required)} daemons beat"


def _automation(services: Services) -> str:
    query = """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
        ... on PythonError { message }
        ... on RepositoryLocation { repositories {
            sensors { name defaultStatus state: sensorState { status
                ticks(limit: 1, statuses: [SUCCESS, SKIPPED, FAILURE]) { error { message causes { message } } } } }
            schedules { name defaultStatus state: scheduleState { status } } } } } } } } }"""
    started, off, failed = 0, [], {}
    for location in _told_by_dagster(services.settings, query)["workspaceOrError"]["locationEntries"]:
        loaded = location["locationOrLoadError"] or {}
        if "repositories" not in loaded:
            raise _Bad(f"{location['name']} is not loaded: {loaded.get('message', 'it is being loaded')[:200]}")
        for repository in loaded["repositories"]:
            for one in (*repository["sensors"], *repository["schedules"]):
                if one["state"]["status"] == "RUNNING":
                    started += 1
                    if error := next((tick["error"] for tick in one["state"].get("ticks", ())), None):
                        failed[one["name"]] = (error["causes"] or [error])[-1]["message"].strip()
                elif one["defaultStatus"] == "RUNNING":
                    off.append(one["name"])
    if failed:
        raise _Bad(
            f"the last tick failed of {', '.join(failed)}: {redact(next(iter(failed.values())))}",
            "Mend what it says; the sensor ticks again by itself. Its page in the Dagster UI (Automation) says more.",
        )
    if off:
        raise _Note(f"switched off: {', '.join(off)}", "Switch on in the Dagster UI (Automation) what should be.")
    return f"{started} are on"


def _background_model(services: Services) -> str:
    from imgpipe_orchestration.imaging.background_model import load_model

    name = services.settings.background_model
    load_model(name)
    return f"{name} can be used"


def _told_by_dagster(settings: Settings, query: str) -> Any:
    try:
        answer = requests.post(f"{settings.dagster_url}/graphql", json={"query": query}, timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        raise _Bad("not known: the Dagster UI, which tells it, does not answer", "Bring the UI back.") from error
    return answer.json()["data"]


def _workers(services: Services) -> str:
    settings = services.settings
    if not settings.celery_broker_url:
        return "none needed: the daemon's own machine runs everything"
    from celery import Celery

    from imgpipe_orchestration.runs.queues import QUEUES

    with Celery(broker=settings.celery_broker_url) as app:
        answers = app.control.inspect(timeout=2).active_queues() or {}
    taken = {queue["name"] for queues in answers.values() for queue in queues}
    if lacking := [queue for queue in QUEUES if queue not in taken]:
        raise _Bad(f"{len(answers)} answer, none of them takes runs of {', '.join(lacking)}")
    return f"{len(answers)} answer, every queue is taken"


def _openai(services: Services) -> str:
    settings = services.settings
    if not settings.openai_api_key:
        raise _Note("not configured: images get measured fields only, avatars cannot be made")
    from imgpipe_orchestration.partners.openai import OpenAIClient
    from imgpipe_orchestration.partners.retry import RetryPolicy

    # The same client as in the runs: a proxy or certificate that fails there fails here too.
    client = OpenAIClient(
        settings.openai_api_key,
        base_url=settings.openai_base_url,
        timeout=_TIMEOUT_SECONDS,
        policy=RetryPolicy(attempts=1),
    )
    try:
        there = client.models()
    finally:
        client.close()
    for name in ("openai_vision_model", "openai_embedding_model", "openai_image_model", "openai_image_edit_model"):
        model = getattr(settings, name)
        if there.get(model):
            raise _Note(f"model {model} ends on {there[model]}", f"Set another one: {name.upper()}.")
        if there and model not in there:
            raise _Note(f"model {model} is not among those on offer", f"Set another one: {name.upper()}.")
    return f"{settings.openai_base_url} accepts the key"


def _google_vision(services: Services) -> str:
    settings = services.settings
    if not settings.google_vision_api_key:
        raise _Note("not configured: images get no labels, objects, text or faces")
    # An empty batch is refused as invalid (400) when the key is good, and costs nothing.
    url = f"{settings.google_vision_endpoint}/v1/images:annotate"
    headers = {"X-Goog-Api-Key": settings.google_vision_api_key}
    answer = requests.post(url, json={"requests": []}, headers=headers, timeout=_TIMEOUT_SECONDS)
    if answer.status_code not in {200, 400} or "API_KEY_INVALID" in answer.text:
        raise _Bad(f"{settings.google_vision_endpoint} answered {answer.status_code}")
    return f"{settings.google_vision_endpoint} accepts the key"


def _flowise(services: Services) -> str:
    settings = services.settings
    if not settings.flowise_base_url:
        raise _Note("not configured: avatars cannot be made")
    answer = requests.get(settings.flowise_base_url, timeout=_TIMEOUT_SECONDS)
    if answer.status_code >= 500:
        raise _Bad(f"{settings.flowise_base_url} answered {answer.status_code}")
    return f"{settings.flowise_base_url} answers"
