"""Sensors, waiting, being killed, and backfills."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import dagster as dg
import pytest
from sqlalchemy import text

from imgpipe_orchestration import resources
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.dagster_side.sensors import PRIORITY
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import analyses, batches, executions, lifecycle, runs
from imgpipe_orchestration.vision_reports.definitions import vision_reports_sensor
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.locks import waiters
from imgpipe_orchestration_tests.vision_reports.conftest import KEY, Desk, job_of

RUN = """
import dagster as dg
from imgpipe_orchestration_tests.vision_reports.conftest import DUE_ONLY, runnable, today
tags = {"dagster/partition": today(), DUE_ONLY: "true"}
dg.execute_job(runnable("vision_reports"), instance=dg.DagsterInstance.ephemeral(), tags=tags)
"""


def tick(desk: Desk) -> dg.SensorResult:
    with dg.build_sensor_context(instance=desk.instance, resources=resources.build()) as context:
        result = vision_reports_sensor(context)
    assert isinstance(result, dg.SensorResult)
    assert all(PRIORITY.items() <= request.tags.items() for request in result.run_requests or [])
    return result


def test_a_tick_with_nothing_due_asks_for_nothing_and_calls_nobody(desk: Desk) -> None:
    desk.seed(images=1)
    desk.job()
    assert not tick(desk).run_requests
    assert desk.standins.calls("vision_analysis") == []
    assert desk.backend.server.requests == []


def test_a_tick_asks_for_a_run_when_a_jobs_time_has_come_or_somebody_asked(desk: Desk) -> None:
    desk.asked()
    assert len(tick(desk).run_requests or []) == 1
    desk.run()
    assert not tick(desk).run_requests
    desk.sql("update cron_jobs set next_run_at = now() - interval '1 second'")
    assert len(tick(desk).run_requests or []) == 1
    assert desk.standins.calls("vision_analysis", "upload") == []


def test_a_tick_asks_for_a_run_beside_one_that_takes_nothing_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.asked()
    job, tags = job_of("vision_reports"), {DUE_ONLY: "true"}
    run = desk.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTING)
    desk.instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", job.name), run.run_id)
    assert not tick(desk).run_requests
    monkeypatch.setattr(runs, "RUN_SECONDS", 0.0)
    assert tick(desk).run_requests


def test_a_run_that_waits_for_a_backend_holds_no_cpu(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "PATIENCE_SECONDS", 60.0)
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    desk.asked()
    run = threading.Thread(target=desk.run)
    run.start()
    submitted = "select 1 from vision_analyses where status = 'submitted'"
    wait_for(lambda: desk.sql(submitted), "the batch to be submitted")
    before = time.process_time()
    time.sleep(2)  # the time over which it is measured
    used = time.process_time() - before
    desk.backend.status = {"status": "completed"}
    run.join(timeout=60)
    assert not run.is_alive()
    assert used < 0.6
    assert len(desk.reports) == 1


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "cancelled"])
def test_a_run_that_ends_while_it_waits_for_a_slow_backend_leaves_its_batch_to_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setenv("LEASE_SECONDS", "2")
    desk.seed(images=2)
    desk.backend.status = {"status": "running"}
    job = desk.asked()
    process = subprocess.Popen([sys.executable, "-c", RUN], env=dict(os.environ), stderr=subprocess.DEVNULL)
    submitted = "select 1 from vision_analyses where status = 'submitted'"
    wait_for(lambda: desk.sql(submitted), "the batch to be submitted")
    process.send_signal(how)
    process.wait(20)
    assert desk.reports == []
    desk.backend.status = {"status": "completed"}

    def ended() -> bool:
        desk.run()
        return desk.executions(job)[0]["status"] != "running"

    wait_for(ended, "the execution to end")
    assert desk.executions(job)[0]["status"] == "success"
    assert (len(desk.backend.orders), desk.backend.images, len(desk.reports)) == (1, 2, 1)


def test_a_backfill_of_a_day_makes_and_delivers_its_reports_anew(desk: Desk) -> None:
    for _ in range(2):
        desk.seed(images=1)
    job = desk.job()
    assert desk.execute(job)["successful"] == 2

    first = desk.backfill()
    assert first.success
    newest = desk.executions(job)[0]
    assert (newest["trigger"], newest["status"], newest["successful"]) == ("backfill", "success", 2)
    assert len(desk.reports) == 4
    assert len(desk.backend.orders) == 4

    assert desk.backfill(reexecution_options=dg.ReexecutionOptions(first.run_id)).success
    assert desk.backfill("2025-06-01").success
    assert len(desk.reports) == 4

    failed = desk.backfill("2024-12-31", raise_on_error=False)
    (event,) = failed.get_step_failure_events()
    assert "There is no partition '2024-12-31'; there is one for each day from 2025-01-01 to today." in str(
        event.event_specific_data
    )


def test_a_backfill_has_the_items_of_a_day_before_its_analyses_as_a_requeue_does(desk: Desk) -> None:
    """Or the two deadlock."""
    desk.seed(images=1)
    assert desk.execute()["successful"] == 1
    today = datetime.now(UTC).date()
    with ThreadPoolExecutor(1) as pool:
        with transaction(desk.services.engine) as requeue:
            requeue.execute(
                text("select 1 from work_items where queue = :queue for update"), {"queue": analyses.QUEUE.name}
            )
            other = pool.submit(analyses.reopen_day, desk.services.engine, desk.services.claims, today, "run-1")
            wait_for(lambda: waiters(desk.services.engine) == 1, "the backfill to wait for the item")
            requeue.execute(text("select 1 from vision_analyses for update nowait"))
        assert len(other.result()) == 1


def test_a_backfill_delivers_to_where_an_api_has_moved_and_to_no_other_organization(desk: Desk) -> None:
    desk.seed(images=1)
    job = desk.job()
    assert desk.execute(job)["status"] == "success"
    moved = desk.standins.analyses_url.replace("127.0.0.1", "localhost")
    for change, delivered in (({"external_api_get_url": moved}, True), ({"organization_id": "other"}, False)):
        desk.api.patch(f"/cron-jobs/{job}", json=change)
        before = len(desk.standins.calls("vision_analysis", "upload"))
        assert desk.backfill().success == delivered
        assert len(desk.standins.calls("vision_analysis", "upload")) - before == delivered
    assert "pointed at another external API or organization" in desk.executions(job)[0]["analyses"][0]["error"]


AWAY = "http://127.0.0.1:9"
TOLD = r"127\.0\.0\.1:9 could not be reached \(connection refused\)"


def test_a_run_is_green_while_a_list_is_tried_again_and_red_once_it_is_given_up(desk: Desk) -> None:
    job = desk.asked(external_api_get_url=f"{AWAY}/list?key=word")
    for _ in range(executions.QUEUE.max_attempts - 1):
        run = desk.run()
        assert run.success
        told = [entry.user_message for entry in desk.instance.all_logs(run.run_id)]
        waits = rf"Execution \d+ waits for its list\. The Vision Analysis API at {TOLD}\. .* the host is up"
        assert len([line for line in told if re.match(waits, line)]) == 1
        (execution,) = desk.executions(job)
        assert execution["status"] == "running"
        assert re.fullmatch(f"The Vision Analysis API at {TOLD}", execution["error"])
    run = desk.run(raise_on_error=False)
    assert not run.success
    (failure,) = [e for e in run.all_events if e.event_type_value == "STEP_FAILURE"]
    said = failure.step_failure_data.user_failure_data.description
    assert re.search(rf"^Given up\. Execution \d+: The Vision Analysis API at {TOLD}\. .* the host is up", said)
    (execution,) = desk.executions(job)
    assert (execution["status"], execution["finished_at"] is None) == ("failed", False)


def test_a_batch_of_ours_waits_while_no_key_is_set_says_so_and_goes_on_once_there_is_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "")
    desk.seed(images=1)
    job = desk.asked(backend_api_url=desk.settings.gateway_url)
    with desk.serving(patience=0.2):
        for _ in range(batches.QUEUE.max_attempts + 1):
            assert desk.run().success

        def told() -> bool:  # not by a run that asks while the batch is looked at
            assert desk.run().success
            return "No model answers the task report" in desk.executions(job)[0]["analyses"][0]["error"]

        wait_for(told, "the reason to be told")
    assert desk.executions(job)[0]["status"] == "running"
    assert not desk.services.claims.failures()
    assert "No model answers the task report" in str(desk.sql("select error from vision_batches")[0][0])
    monkeypatch.setenv("OPENAI_API_KEY", desk.settings.openai_api_key)
    with desk.serving():
        desk.run()
    assert desk.executions(job)[0]["status"] == "success"
    assert len(desk.reports) == 1


@pytest.mark.parametrize("submitted", [True, False])
def test_under_a_new_secret_key_a_submitted_analysis_goes_on_and_another_is_stored_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, submitted: bool
) -> None:
    desk.seed(images=1, descriptions=False)
    desk.backend.status = {"status": "running"}
    if not submitted:
        desk.standins.fault("files", "rate_limit", retry_after=600, count=1)
    job = desk.asked()
    assert desk.run().success
    monkeypatch.setenv("SECRET_KEY", "another")
    with Client(create_app(desk.settings.model_copy(update={"secret_key": "another"}))) as gateway:
        assert gateway.patch(f"/cron-jobs/{job}", json={"external_api_key": KEY}).status_code == 200
    desk.backend.status = {"status": "completed"}
    desk.run(raise_on_error=False)
    assert desk.executions(job)[0]["status"] == ("success" if submitted else "failed")
    assert submitted or desk.execute(job)["status"] == "success"
    assert (len(desk.backend.orders), len(desk.reports)) == (1, 1)


def test_many_are_worked_on_at_once_what_a_run_has_no_time_for_is_given_back_and_slow_downloads_cost_a_try(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RUN_SECONDS", 10.0)
    desk.standins.admin("POST", "delays", {"files": 12})
    for _ in range(runs.SHARE + 4):
        desk.seed(images=1, descriptions=False)
    desk.asked()
    assert desk.run().success
    assert desk.standins.admin("GET", "calls")["most_in_flight"]["files"] == runs.SHARE
    assert len(desk.reports) == runs.SHARE, "what was begun was not given up"
    states = "select distinct state, failures > 0 from work_items where queue = 'vision_analyses' and state <> 'done'"
    assert desk.sql(states) == [("waiting", False)]
    monkeypatch.setattr(runs, "DOWNLOAD_SECONDS", 1.0)
    assert desk.run().success
    assert desk.sql(states) == [("waiting", True)]
    desk.standins.admin("POST", "delays", {"files": 0})
    monkeypatch.setattr(runs, "RUN_SECONDS", 600.0)
    monkeypatch.setattr(runs, "DOWNLOAD_SECONDS", 600.0)
    run = desk.run()
    assert len(desk.reports) == runs.SHARE + 4
    (summary,) = [e for e in run.all_events if e.event_type_value == "ASSET_MATERIALIZATION"]
    totals = summary.step_materialization_data.materialization.metadata
    assert [totals[name].value for name in ("reports", "delivered", "failed")] == [4, 4, 0]
    assert totals["page"].value == f"{desk.settings.public_base_url}/vision-reports"


def test_old_history_goes_and_what_was_delivered_is_remembered(desk: Desk) -> None:
    desk.seed(images=1)
    job = desk.job(backend_api_url=desk.settings.gateway_url)
    with desk.serving():
        assert desk.execute(job)["status"] == "success"
        assert desk.execute(job)["total"] == 0
    desk.sql("update vision_executions set finished_at = now() - interval '40 days'")
    desk.sql("update vision_batches set finished_at = now() - interval '40 days'")
    desk.sql("update vision_uploads set created_at = now() - interval '40 days'")
    assert lifecycle.tidy(desk.services, 30) == 1  # the execution that delivered nothing
    kept = {stored.key.partition("/")[0] for stored in desk.services.vision_bucket.list()}
    assert kept == {"images", "reports"}, "these go by VISION_KEEP_DAYS"
    assert [execution["total"] for execution in desk.executions(job)] == [1]


def test_an_analysis_that_fails_fails_alone_and_the_run_is_red_and_names_it(desk: Desk) -> None:
    desk.seed(images=0, run_code="EMPTY", descriptions=False)
    desk.seed(images=1, run_code="GOOD")
    job = desk.asked()
    run = desk.run()
    (failure,) = [e for e in run.all_events if e.event_type_value == "STEP_FAILURE"]
    said = failure.step_failure_data.user_failure_data
    assert re.match(r"Given up\. EMPTY: ", said.description) and "GOOD" not in said.description
    assert (said.metadata["delivered"].value, said.metadata["failed"].value) == (1, 1)
    (execution,) = desk.executions(job)
    assert (execution["status"], execution["total"], execution["successful"], execution["failed"]) == (
        "partial", 2, 1, 1,
    )  # fmt: skip
    assert execution["run_url"].endswith(f"/runs/{run.run_id}")
    assert [entry["status"] for entry in execution["analyses"]] == ["failed", "success"]
