"""Checks of the project's own processes: the gateway, Dagster's and the workers."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import requests

from imgpipe_orchestration.cli.diagnosis.check import TIMEOUT_SECONDS, Bad, Note
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import backlog
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.redaction import redact

_SILENT_SECONDS = 180
"""Without a heartbeat for so long the daemon is down. It writes one every 30 s; Dagster itself waits half an hour."""
_STARTING_SECONDS = 300
"""A run that begins for longer waits for a worker that is busy, or that never heard of it."""
_FROZEN_SECONDS = 60
"""A run that still has not renewed its leases so long after their end does nothing. A database that was away or a busy
machine delays that by less."""
_AHEAD_SECONDS = 60
"""With a heartbeat so far ahead the daemon waits for a clock that was set back, or two machines' clocks differ."""


def gateway(services: Services) -> str:
    url = f"{_named(services.settings, 'gateway_url')}/health"
    answer = requests.get(url, timeout=TIMEOUT_SECONDS)
    if answer.status_code == 503:
        with suppress(ValueError, LookupError, TypeError, AttributeError):  # a proxy's 503 has another body
            checks: dict[str, str] = answer.json()["checks"]
            well = {"ok", "not configured", checks.pop("last_tick", ""), checks.pop("dagster_daemon", "")}
            if down := [f"{what}: {said}" for what, said in checks.items() if said not in well]:
                raise Bad(f"{url} answers, and says {'; '.join(down)}", "The gateway itself works: fix what it names.")
    return _answered(url, answer)


def dagster_ui(services: Services) -> str:
    url = f"{_named(services.settings, 'dagster_url')}/server_info"
    return _answered(url, requests.get(url, timeout=TIMEOUT_SECONDS))


def _named(settings: Settings, name: str) -> str:
    """The setting of that name, a URL.

    Raises:
        Bad: neither a stack nor a person has named it: at its default another stack may answer.
    """
    if name not in settings.model_fields_set and not settings.production:
        raise Bad(f"not checked: no stack runs on this folder, and {name.upper()} is not set")
    url: str = getattr(settings, name)
    return url


def _answered(url: str, answer: requests.Response) -> str:
    if answer.status_code != 200:
        raise Bad(f"{url} answered {answer.status_code}: {answer.text[:200]}")
    return f"{url} answers"


def daemon(services: Services) -> str:
    query = """{ instance { daemonHealth { allDaemonStatuses {
        daemonType required healthy lastHeartbeatTime lastHeartbeatErrors { message } } } } }"""
    statuses = _told_by_dagster(services.settings, query)["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = [status for status in statuses if status["required"]]
    # The latest heartbeat of all daemons: one with much to do writes its own late.
    silent = time.time() - max((status["lastHeartbeatTime"] or 0 for status in required), default=0)
    said = {error["message"].strip() for status in required for error in status["lastHeartbeatErrors"]}
    if said and silent <= _SILENT_SECONDS:
        raise Bad(redact("; ".join(sorted(said))), "Fix what it says. It stays for up to five minutes after that.")
    ill = [status["daemonType"] for status in required if not status["healthy"] or silent > _SILENT_SECONDS]
    if ill:
        raise Bad(f"no heartbeat of {', '.join(ill).lower()}")
    if -silent > _AHEAD_SECONDS:
        raise Bad(
            f"its last heartbeat is {-silent:.0f} s ahead of this machine's clock",
            "If this machine's clock was set back, restart the daemon. Otherwise synchronise the machines' clocks.",
        )
    return f"{len(required)} daemons are healthy"


_NOT_LOADED = "DagsterCodeLocationNotFoundError"


def automation(services: Services) -> str:
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
            raise Bad(f"{location['name']} is not loaded: {loaded.get('message', 'it is being loaded')[:200]}")
        for repository in loaded["repositories"]:
            for one in (*repository["sensors"], *repository["schedules"]):
                if one["state"]["status"] == "RUNNING":
                    started += 1
                    error = next((tick["error"] for tick in one["state"].get("ticks", ())), None)
                    # A tick of the moment after a start, before the code was loaded, which it is by now.
                    if error and _NOT_LOADED not in _reason(error):
                        failed[one["name"]] = _reason(error)
                elif one["defaultStatus"] == "RUNNING":
                    off.append(one["name"])
    if failed:
        raise Bad(
            f"These failed at their last tick: {', '.join(failed)}. First error: {redact(next(iter(failed.values())))}",
            "Fix it; sensors retry by themselves. Details: Automation, in the Dagster UI.",
        )
    if off:
        raise Note(f"switched off: {', '.join(off)}", "Switch on in the Dagster UI (Automation) what should be.")
    return f"{started} running"


def _reason(error: dict[str, Any]) -> str:
    """The innermost cause's message; for gRPC errors, whose message is a dump, Dagster's own."""
    said: list[str] = [one["message"].strip() for one in (error, *error["causes"])]
    return next((words for words in reversed(said) if not words.startswith("grpc.")), said[0])


def beginning(services: Services) -> str:
    query = (
        "{runsOrError(filter: {statuses: [STARTING]}, limit: 100) {... on Runs {results {runId jobName updateTime}}}}"
    )
    waiting = _told_by_dagster(services.settings, query)["runsOrError"]["results"]
    late = [run for run in waiting if time.time() - run["updateTime"] > _STARTING_SECONDS]
    if late:
        longest = (time.time() - min(run["updateTime"] for run in late)) / 60
        raise Note(
            f"{len(late)} wait for a worker, for up to {longest:.0f} minutes: "
            f"{', '.join(sorted({run['jobName'] for run in late}))} ({late[0]['runId']})",
            "If their queue's workers are idle, the broker lost these runs: force their termination in the Dagster UI"
            " (Runs). The next run takes over their work.",
        )
    return str(len(waiting))


def at_work(services: Services) -> str:
    query = (
        "{runsOrError(filter: {statuses: [STARTED, CANCELING]}, limit: 1000) {... on Runs {results {runId jobName}}}}"
    )
    runs = _told_by_dagster(services.settings, query)["runsOrError"]["results"]
    jobs: dict[str, str] = {run["runId"]: run["jobName"] for run in runs}
    with transaction(services.engine) as connection:
        silent = backlog.silent(connection, list(jobs), seconds=_FROZEN_SECONDS)
    if silent:
        raise Bad(
            "; ".join(
                f"run {one.owner} ({jobs[one.owner]}) holds {one.held} and has given no sign of life since its lease"
                f" ended {one.seconds:.0f} s ago"
                for one in silent
            ),
            "Its process is frozen or cut off from the database, and its pipeline may wait an hour. Cancel it in the"
            " Dagster UI (Runs), which kills it after 200 s, or kill its process. Another run takes over its work.",
        )
    return str(len(jobs))


def _told_by_dagster(settings: Settings, query: str) -> Any:
    url = f"{_named(settings, 'dagster_url')}/graphql"
    try:
        answer = requests.post(url, json={"query": query}, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        seen = "unknown: the Dagster UI does not answer"
        mend = "Bring back the UI or Dagster's database, whichever is down."
        raise Bad(seen, mend) from error
    return answer.json()["data"]


def workers(services: Services) -> str:
    settings = services.settings
    if not settings.celery_broker_url:
        return "not needed: the daemon starts every run on its own machine"
    from imgpipe_orchestration.dagster_side.run_tags import QUEUES

    with _celery(settings) as app:
        answers = app.control.inspect(timeout=2).active_queues() or {}
    taken = {queue["name"] for queues in answers.values() for queue in queues}
    if lacking := [queue for queue in QUEUES if queue not in taken]:
        raise Bad(f"{len(answers)} answer, none of them takes runs of {', '.join(lacking)}")
    return f"{len(answers)} answer, every queue is taken"


def _celery(settings: Settings) -> Any:
    from celery import Celery

    from imgpipe_orchestration.dagster_side.celery_configuration import celery_configuration

    broker = settings.celery_broker_url
    return Celery(broker=broker, config_source=celery_configuration(broker, None))
