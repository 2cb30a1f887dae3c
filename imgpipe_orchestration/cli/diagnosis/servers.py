"""Checks of the project's own processes: the gateway, Dagster's and the workers."""

from __future__ import annotations

import time
from typing import Any

import requests

from imgpipe_orchestration.cli.diagnosis.check import TIMEOUT_SECONDS, Bad, Note
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings

_SILENT_SECONDS = 180
"""Without a heartbeat for so long the daemon is down. It writes one every 30 s; Dagster itself waits half an hour."""
_NOT_LOADED = "DagsterCodeLocationNotFoundError"


def gateway(services: Services) -> str:
    return _answers(f"{_named(services.settings, 'gateway_url')}/health")


def dagster_ui(services: Services) -> str:
    return _answers(f"{_named(services.settings, 'dagster_url')}/server_info")


def _named(settings: Settings, name: str) -> str:
    """The setting of that name, a URL.

    Raises:
        Bad: neither a stack nor a person has named it: at its default another stack may answer.
    """
    if name not in settings.model_fields_set and not settings.production:
        raise Bad(f"not checked: no stack runs on this folder, and {name.upper()} is not set")
    url: str = getattr(settings, name)
    return url


def _answers(url: str) -> str:
    answer = requests.get(url, timeout=TIMEOUT_SECONDS)
    if answer.status_code != 200:  # of the gateway's 503 the body says what is down
        raise Bad(f"{url} answered {answer.status_code}: {answer.text[:500]}")
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
        raise Bad("; ".join(sorted(said)), "Fix what it says. It stays for up to five minutes after that.")
    ill = [status["daemonType"] for status in required if not status["healthy"] or silent > _SILENT_SECONDS]
    if ill:
        raise Bad(f"no heartbeat of {', '.join(ill).lower()}")
    return f"{len(required)} daemons are healthy"


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
        for one in [found for each in loaded["repositories"] for found in (*each["sensors"], *each["schedules"])]:
            started += one["state"]["status"] == "RUNNING"
            if one["state"]["status"] != "RUNNING" and one["defaultStatus"] == "RUNNING":
                off.append(one["name"])
            for error in [tick["error"] for tick in one["state"].get("ticks", ()) if tick["error"]]:
                # The innermost cause; of gRPC errors, whose message is a dump, Dagster's own.
                said: list[str] = [part["message"].strip() for part in (error, *error["causes"])]
                reason = next((words for words in reversed(said) if not words.startswith("grpc.")), said[0])
                # Not a tick of the moment after a start, before the code was loaded, which it is by now.
                if one["state"]["status"] == "RUNNING" and _NOT_LOADED not in reason:
                    failed[one["name"]] = reason
    if failed:
        raise Bad(
            f"These failed at their last tick: {', '.join(failed)}. First error: {next(iter(failed.values()))}",
            "Fix it; sensors retry by themselves. Details: Automation, in the Dagster UI.",
        )
    if off:
        raise Note(f"switched off: {', '.join(off)}", "Switch on in the Dagster UI (Automation) what should be.")
    return f"{started} running"


def _told_by_dagster(settings: Settings, query: str) -> Any:
    url = f"{_named(settings, 'dagster_url')}/graphql"
    try:
        answer = requests.post(url, json={"query": query}, timeout=TIMEOUT_SECONDS)
        answer.raise_for_status()
    except requests.RequestException as error:
        seen = "unknown: the Dagster UI does not answer"
        raise Bad(seen, "Bring back the UI or Dagster's database, whichever is down.") from error
    return answer.json()["data"]


def workers(services: Services) -> str:
    settings = services.settings
    if not settings.celery_broker_url:
        return "not needed: the daemon starts every run on its own machine"
    from celery import Celery

    from imgpipe_orchestration.dagster_side.celery_configuration import celery_configuration
    from imgpipe_orchestration.dagster_side.run_tags import QUEUES

    broker = settings.celery_broker_url
    with Celery(broker=broker, config_source=celery_configuration(broker, None)) as app:
        answers = app.control.inspect(timeout=2).active_queues() or {}
    taken = {queue["name"] for queues in answers.values() for queue in queues}
    if lacking := [queue for queue in QUEUES if queue not in taken]:
        raise Bad(f"{len(answers)} answer, none of them takes runs of {', '.join(lacking)}")
    return f"{len(answers)} answer, every queue is taken"
