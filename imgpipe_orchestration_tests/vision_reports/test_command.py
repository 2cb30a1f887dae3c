"""`imgpipe vision-reports run`, as the script it replaces was used."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imgpipe_orchestration.cli.vision_reports import vision_reports
from imgpipe_orchestration.vision_reports import command
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.vision_reports.conftest import KEY, Desk

RUN = "from imgpipe_orchestration.cli.vision_reports import vision_reports; vision_reports()"


@pytest.fixture
def config(mine: dict[str, str], tmp_path: Path) -> Path:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(mine))
    file.chmod(0o600)
    return file


def invoke(config: Path, *words: str) -> Result:
    return CliRunner().invoke(vision_reports, ["run", "--config", str(config), *words])


def test_a_config_file_is_all_it_needs_and_the_log_file_has_what_it_says(
    desk: Desk, config: Path, tmp_path: Path
) -> None:
    desk.seed(images=2)
    desk.seed(images=0, descriptions=False, run_code="EMPTY")
    log = tmp_path / "batch_processor.log"
    command, environ = [sys.executable, "-c", RUN, "run", "--config", str(config)], {**os.environ, "LOG_FILE": str(log)}
    with desk.dagster():
        ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    said, logged = ran.stdout, log.read_text()
    for line in (
        "VISION_RUN_001: delivered",
        "EMPTY: failed: The analysis names no image.",
        "partial. Total 2, successful 1, failed 1.",
    ):
        assert f"{line}\n" in said and f" - INFO - {line}" in logged
    assert not [row for row in (said, logged, *desk.stored()) if KEY in row]
    assert len(desk.reports) == 1


def test_it_says_that_only_other_organizations_have_analyses(desk: Desk, config: Path) -> None:
    desk.seed(images=0, organization_id="somebody-else")
    with desk.dagster():
        ran = invoke(config)
    assert "success: Unprocessed analyses of other organizations: 1. Total 0, successful 0, failed 0." in ran.output


def test_a_flag_goes_before_the_environment_and_the_environment_before_the_file(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.seed(images=1, organization_id="from-the-environment")
    desk.seed(images=1, organization_id="from-the-flag")
    monkeypatch.setenv("ORGANIZATION_ID", "from-the-environment")
    with desk.dagster():
        ran = invoke(config, "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["successful"] == 1
    assert re.match(r"The Vision Analysis API at [\w.]+:\d+, organization from-the-environment\n", ran.stderr)
    with desk.dagster():
        ran = invoke(config, "--organization-id", "from-the-flag")
    assert ran.exit_code == 0, ran.output
    assert [r["organization_id"] for r in desk.reports] == ["from-the-environment", "from-the-flag"]


def test_in_production_the_token_goes_over_https_only(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGPIPE_ENV", "production")
    for name in ("MEDIA_API_KEY", "MAIN_API_KEY", "ADMIN_API_KEY", "USER_JWT_SECRET", "SECRET_KEY", "BACKEND_API_KEY"):
        monkeypatch.setenv(name, f"a-{name.lower()}-of-production")
    ran = invoke(config)
    assert ran.exit_code != 0
    assert "external_api_get_url must be an https address in production" in str(ran.exception)
    assert desk.sql("select count(*) from vision_executions")[0][0] == 0, "nothing was begun"


def test_while_no_run_takes_it_up_it_says_so_and_goes_on_once_one_does(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "UNTAKEN_SECONDS", 0.0)
    desk.seed(images=1)
    with ThreadPoolExecutor(1) as pool:
        ran = pool.submit(invoke, config)
        wait_for(lambda: desk.sql("select 1 from vision_executions"), "the execution")
        time.sleep(2)  # in which the command looks more than once
        with desk.dagster():
            output = ran.result(60).output
    assert len(re.findall(r"No run has taken up execution \d+ yet\. It waits until Dagster runs", output)) == 1
    assert "success. Total 1, successful 1, failed 0." in output


def test_what_no_run_takes_up_is_withdrawn(desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GIVEN_UP_SECONDS", 1.0)
    desk.seed(images=1)
    result = invoke(config)
    assert result.exit_code == 1
    assert "failed: No run of Dagster took it up within an hour. Total 0" in result.output
    assert desk.run().success
    assert desk.sql("select status from vision_executions") == [("failed",)]
    assert not desk.reports, "a later run does not begin it"


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_what_it_began_goes_on_without_it(desk: Desk, config: Path, how: signal.Signals) -> None:
    desk.seed(images=1)
    arguments = [sys.executable, "-c", RUN, "run", "--config", str(config)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        wait_for(lambda: desk.sql("select 1 from vision_executions"), "the execution")
        process.send_signal(how)
        said = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    told = re.search(r"Execution \d+ goes on without this command\. Look at it in Dagster: http", said)
    assert bool(told) == (how is signal.SIGINT)
    assert desk.run().success
    assert [row.status for row in desk.sql("select status from vision_executions")] == ["success"]
    assert len(desk.reports) == 1


def test_its_backend_gets_our_key_and_that_of_a_cron_job_does_not(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKEND_API_KEY", "our-key")
    desk.seed(images=1)
    assert desk.execute()["status"] == "success"
    assert not any("authorization" in headers for _, headers, _ in desk.backend.server.requests)
    desk.seed(images=1)
    with desk.dagster():
        assert invoke(config).exit_code == 0
    assert desk.backend.server.requests[-1][1]["authorization"] == "Bearer our-key"


def test_a_backfill_takes_a_cron_jobs_analyses_and_a_commands(desk: Desk, config: Path) -> None:
    desk.seed(images=1)
    assert desk.execute()["status"] == "success"
    for _ in range(2):
        desk.seed(images=1)
        with desk.dagster():
            assert invoke(config).exit_code == 0
    assert desk.backfill().success
    assert (len(desk.reports), len(desk.backend.orders)) == (6, 6)
