"""A desk for vision reports: the product over this test's database, the stand-in external API, and runs of the job."""

from __future__ import annotations

import json
import re
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import dagster as dg
import pytest
from sqlalchemy import text

from imgpipe_orchestration import resources
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import batch_work, runs
from imgpipe_orchestration.vision_reports.definitions import definitions
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.partners.wire import Behaviour, reply, serving
from imgpipe_orchestration_tests.vision_reports.backend import Backend, backend_serving

ORGANIZATION = "38162954-469A-40BC-B619-3E9F71DE6DB9"
KEY = "customer-token-5f1c0a7be2"


@cache
def job_of(name: str) -> dg.JobDefinition:
    """A job of this feature over the project's resources and executor."""
    around = dg.Definitions(resources=resources.build(), executor=dg.in_process_executor)
    return dg.Definitions.merge(definitions, around).resolve_job_def(name)


def runnable(name: str) -> dg.ReconstructableJob:
    """The same, as Dagster runs it outside of tests."""
    return dg.build_reconstructable_job(__name__, "job_of", reconstructable_args=(name,))


def listed_as(*entries: Any) -> Behaviour:
    """An external API that lists these, whatever it is asked, and takes every report."""
    data = {"page": 1, "total": len(entries), "vision_analysis": list(entries)}
    body = json.dumps({"code": 200, "status": "success", "data": data}).encode()
    return lambda handler, _: reply(handler, body if handler.command == "GET" else b"")


def data_of(html: str) -> dict[str, Any]:
    """What a report carries for machines."""
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', html, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


class Desk:
    """What the tests do all the time."""

    def __init__(
        self, settings: Settings, standins: StandInAccess, instance: dg.DagsterInstance, backend: Backend
    ) -> None:
        self.settings = settings
        self.standins = standins
        self.instance = instance
        self.backend = backend
        self.services = Services(settings)
        self.api = Client(create_app(settings))

    # --- the external API ------------------------------------------------------------------------------------------

    def seed(self, **wanted: Any) -> dict[str, Any]:
        """An unprocessed analysis at the external API."""
        seeded: list[dict[str, Any]] = self.standins.admin(
            "POST", "vision-analyses", {"organization_id": ORGANIZATION, **wanted}
        )
        return seeded[0]

    @property
    def reports(self) -> list[dict[str, Any]]:
        """What was uploaded to it."""
        found: list[dict[str, Any]] = self.standins.admin("GET", "reports")
        return found

    # --- ours --------------------------------------------------------------------------------------------------------

    def customers(self) -> dict[str, str]:
        """The documents' five values, over a foreign backend."""
        return {
            "external_api_get_url": self.standins.analyses_url,
            "external_api_post_url": f"{self.standins.analyses_url}/upload",
            "external_api_key": KEY,
            "backend_api_url": self.backend.url,
            "organization_id": ORGANIZATION,
        }

    def job(self, **values: Any) -> str:
        """A cron job that is never due by itself."""
        named = {"name": "Test Vision Analysis Job", "schedule": "0 0 1 1 *", "enabled": True}
        body = {**named, **self.customers(), **values}
        answer = self.api.post("/cron-jobs", json=body)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def ask(self, job_id: str) -> None:
        """Ask for an execution now."""
        assert self.api.post(f"/cron-jobs/{job_id}/run").status_code == 202

    def asked(self, **values: Any) -> str:
        """A job that was asked to run."""
        job_id = self.job(**values)
        self.ask(job_id)
        return job_id

    def executions(self, job_id: str) -> list[dict[str, Any]]:
        """Newest first."""
        found: list[dict[str, Any]] = self.api.get(f"/cron-jobs/{job_id}/executions").json()["executions"]
        return found

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement, none of one that gives none."""
        with transaction(self.services.engine) as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def stored(self) -> list[str]:
        """Every row of every table."""
        tables = self.sql("select tablename from pg_tables where schemaname = 'public'")
        return [str(row) for (table,) in tables for row in self.sql(f'select * from "{table}"')]

    def run(self, **options: Any) -> dg.JobExecutionResult:
        """One Dagster run of the sensor, in this process."""
        return self.backfill(more={DUE_ONLY: "true"}, **options)

    def backfill(self, day: str = "", more: dict[str, str] | None = None, **options: Any) -> dg.JobExecutionResult:
        """One Dagster run as a backfill of this day, or of today, has it."""
        self.hurry()
        tags = {"dagster/partition": day or today(), **(more or {})}
        return dg.execute_job(runnable("vision_reports"), instance=self.instance, tags=tags, **options)

    @contextmanager
    def dagster(self) -> Iterator[None]:
        """A run whenever something is due."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.2):
                if runs.is_due(self.services):
                    self.run(raise_on_error=False)

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join(60)

    @contextmanager
    def serving(self, patience: float = 30.0) -> Iterator[str]:
        """Our gateway, at the address that the settings name, with a run for its batches whenever one is due; runs of
        reports wait for them for so many seconds."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.2):
                batch_work.work_on_all(resources.BackendsResource().services, "a run of vision_batches")

        port = urlsplit(self.settings.gateway_url).port or 0
        worker = threading.Thread(target=work)
        with (
            patch.object(runs, "PATIENCE_SECONDS", patience),
            live(self.settings, socket.create_server(("127.0.0.1", port))) as url,
        ):
            worker.start()
            try:
                yield url
            finally:
                over.set()
                worker.join(60)

    def execute(self, job_id: str | None = None, **values: Any) -> dict[str, Any]:
        """A job's execution from asking to its end, in as many runs as it takes (at most five)."""
        job_id = job_id or self.job(**values)
        self.ask(job_id)
        for _ in range(5):
            self.run()
            execution = self.executions(job_id)[0]
            if execution["status"] != "running":
                break
        return execution

    def execute_over(self, *entries: Any) -> tuple[dict[str, Any], list[bytes]]:
        """An execution over an external API that lists these, and the reports that were sent to it."""
        with serving(listed_as(*entries)) as server:
            execution = self.execute(external_api_get_url=server.url, external_api_post_url=server.url)
            return execution, [body for _, _, body in server.requests if body]

    def hurry(self) -> None:
        """Whatever waits for its next try is due now."""
        self.sql("update work_items set due_at = now() where state = 'waiting' and due_at > now()")


@pytest.fixture
def desk(settings: Settings, standins: StandInAccess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    gateway = f"http://127.0.0.1:{free_port()}"
    settings = settings.model_copy(
        update={
            **dict.fromkeys(("gateway_url", "public_base_url"), gateway),
            "openai_api_key": f"key-{uuid.uuid4()}",
            "openai_base_url": standins.openai_url,
            "allowed_private_hosts": standins.url.removeprefix("http://"),
            "partner_timeout_seconds": 30.0,
        }
    )
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runs, "PATIENCE_SECONDS", 0.2)
    with dg.DagsterInstance.ephemeral() as instance, backend_serving() as backend:
        desk = Desk(settings, standins, instance, backend)
        with desk.api:
            yield desk
        desk.services.close()


@pytest.fixture
def mine(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What a person puts in the place of each of the documents' examples; nothing of it is in the environment."""
    for name in (values := desk.customers()):
        monkeypatch.delenv(name.upper(), raising=False)
    return values
