"""Vision reports through the running stack: cron job, sensor, run, own backend, report; and all of it killed midway."""

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack
from imgpipe_orchestration_tests.vision_reports.backend import backend_serving


class Client:
    """An organization with a cron job of its own, and what the external API has of it."""

    def __init__(self, stack: Stack, organization: str, **values: Any) -> None:
        self.stack = stack
        self.organization = organization
        environment = stack.environment
        self.listing = environment["EXTERNAL_API_GET_URL"]
        body = {
            "name": organization,
            "schedule": "0 0 1 1 *",
            "external_api_get_url": self.listing,
            "external_api_post_url": environment["EXTERNAL_API_POST_URL"],
            "external_api_key": environment["EXTERNAL_API_KEY"],
            "organization_id": organization,
            **values,
        }
        answer = stack.session.post(f"{stack.gateway}/cron-jobs", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        self.job = f"{stack.gateway}/cron-jobs/{answer.json()['job_id']}"

    def seed(self, **wanted: Any) -> None:
        body = {"organization_id": self.organization, **wanted}
        self._standin("POST", "vision-analyses", body)

    def ask(self) -> None:
        assert self.stack.session.post(f"{self.job}/run", timeout=30).status_code == 202

    def execution(self) -> dict[str, Any]:
        found = self.stack.session.get(f"{self.job}/executions?limit=1", timeout=30).json()["executions"]
        execution: dict[str, Any] = found[0]
        return execution

    def ended(self) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            execution = self.execution()
            return None if execution["status"] == "running" else execution

        ended: dict[str, Any] = wait_for(look, "the execution to end")
        return ended

    def reports(self) -> list[dict[str, Any]]:
        return [r for r in self._standin("GET", "reports") if r["organization_id"] == self.organization]

    def _standin(self, method: str, path: str, body: Any = None) -> Any:
        base = self.listing.partition("/vision-analysis/")[0]
        return self.stack.session.request(method, f"{base}/_standin/{path}", json=body, timeout=30).json()


@pytest.mark.slow
def test_an_analysis_is_reported_by_itself_and_again_by_a_backfill_of_its_day(stack: Stack) -> None:
    client = Client(stack, "e2e-one")
    client.seed(images=2, dead_link=True)
    client.ask()
    execution = client.ended()
    assert (execution["status"], execution["total"]) == ("success", 1)
    (report,) = client.reports()
    assert report["filename"] == f"report_{execution['analyses'][0]['batch_id']}.html"
    run_id = execution["run_url"].rpartition("/")[2]
    steps = """
        query Steps($id: ID!) { runOrError(runId: $id) { ... on Run { stepStats { stepKey status } } } }
    """

    def reported() -> bool:
        """The execution's row is written from within the step, so Dagster hears of its success a moment later."""
        found = stack.graphql(steps, id=run_id)["runOrError"]["stepStats"]
        return [(s["stepKey"], s["status"]) for s in found] == [("vision_reports__reports", "SUCCESS")]

    wait_for(reported, "the run's step to succeed")

    today = datetime.now(UTC).date()
    days = ("--from", str(today - timedelta(days=1)), "--to", str(today))
    words = ("-w", "workspace.yaml", "-j", "vision_reports", *days, "--noprompt")
    started = stack.dagster("job", "backfill", *words)
    assert started.returncode == 0, started.stderr
    wait_for(lambda: client.execution()["trigger"] == "backfill", "the backfill")
    assert client.ended()["status"] == "success"
    assert len(client.reports()) == 2


@pytest.mark.slow
def test_daemon_and_run_killed_between_submit_and_upload_cost_neither_a_second_batch_nor_the_report(
    stack: Stack,
) -> None:
    with backend_serving() as backend:
        backend.status = {"status": "running"}
        client = Client(stack, "e2e-killed", backend_api_url=backend.url)
        client.seed(images=2)
        client.ask()
        wait_for(lambda: backend.asked("/batches/"), "the batch to be waited for")
        (run,) = [r for r in stack.runs("vision_reports") if r["status"] == "STARTED"]
        process = next(json.loads(tag["value"]) for tag in run["tags"] if tag["key"] == "dagster/forked_process")
        os.kill(stack.up.part("dagster-daemon")["pid"], signal.SIGKILL)
        os.kill(process["pid"], signal.SIGKILL)
        backend.status = {"status": "completed"}
        assert client.ended()["status"] == "success"
        assert (len(backend.orders), backend.images) == (1, 2)
    assert len(client.reports()) == 1
