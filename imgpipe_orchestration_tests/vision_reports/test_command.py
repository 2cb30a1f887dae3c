"""`imgpipe vision-reports run`, as the script it replaces was used."""

import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from imgpipe_orchestration.cli.vision_reports import vision_reports
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


def test_a_config_file_is_all_it_needs(desk: Desk, config: Path) -> None:
    desk.seed(images=2)
    desk.seed(images=0, descriptions=False, run_code="EMPTY")
    ran = invoke(config)
    assert ran.exit_code == 1, ran.output
    assert "VISION_RUN_001: delivered" in ran.output
    assert "EMPTY: failed: The analysis names no image." in ran.output
    assert "partial. Total 2, successful 1, failed 1." in ran.output
    assert "can read" not in ran.stderr
    assert not [row for row in (ran.output, *desk.stored()) if KEY in row]
    assert len(desk.reports) == 1


def test_the_log_file_has_each_step_and_the_summary_and_the_terminal_only_what_went_wrong(
    desk: Desk, config: Path, tmp_path: Path
) -> None:
    desk.seed(images=1)
    desk.seed(images=0, descriptions=False, run_code="EMPTY")
    log = tmp_path / "batch_processor.log"
    arguments = [sys.executable, "-c", RUN, "run", "--config", str(config)]
    ran = subprocess.run(arguments, env={**os.environ, "LOG_FILE": str(log)}, capture_output=True, check=False)
    lines, shown = log.read_text(), ran.stderr.decode()
    assert re.search(r" - INFO - delivered .*analysis=", lines)
    assert re.search(r" - INFO - Execution \d+: partial .*total=2 successful=1 failed=1", lines)
    assert "The analysis names no image." in shown and "The analysis names no image." in lines
    assert " - INFO - " not in shown


def test_a_flag_goes_before_the_environment_and_the_environment_before_the_file(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.seed(images=1, organization_id="from-the-environment")
    desk.seed(images=1, organization_id="from-the-flag")
    monkeypatch.setenv("ORGANIZATION_ID", "from-the-environment")
    ran = invoke(config, "--json")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["successful"] == 1
    assert re.match(r"The Vision Analysis API at [\w.]+:\d+, organization from-the-environment\n", ran.stderr)
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


def test_the_next_command_goes_on_with_what_one_could_not_finish(desk: Desk, config: Path) -> None:
    desk.seed(images=1)
    desk.seed(images=1, organization_id="somebody-else")
    desk.standins.fault("vision_analysis", "server_error", operation="upload", count=6)
    for total in ("1 unprocessed analyses", "1 analyses left by an earlier command"):
        ran = invoke(config)
        assert ran.exit_code == 1, ran.output
        assert total in ran.output
        assert "VISION_RUN_001: not delivered yet" in ran.output
    ran = invoke(config)
    assert ran.exit_code == 0, ran.output
    assert "success. Total 1, successful 1, failed 0." in ran.output
    assert (len(desk.reports), len(desk.backend.orders)) == (1, 1)
    ended = desk.sql("select status, failed from vision_executions order by id")
    assert [tuple(one) for one in ended] == [("failed", 1), ("failed", 1), ("success", 0)]


def test_what_a_killed_command_held_is_taken_up_and_what_a_living_one_holds_is_not(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEASE_SECONDS", "3")
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    first = start(config)
    try:
        wait_for(lambda: desk.backend.asked("/batches/"), "the first look at the batch", 60)
        ran = invoke(config)
        assert "0 unprocessed analyses" in ran.output
    finally:
        first.kill()
        first.wait(20)
    desk.backend.status = {"status": "completed"}
    ran = invoke(config)
    assert ran.exit_code == 0, ran.output
    assert "1 analyses left by an earlier command" in ran.output
    assert (len(desk.reports), len(desk.backend.orders)) == (1, 1)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["killed", "stopped"]
)
def test_a_command_that_ends_while_it_lists_leaves_no_running_execution(
    desk: Desk, config: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setenv("LEASE_SECONDS", "2")
    monkeypatch.setenv("PARTNER_TIMEOUT_SECONDS", "2")
    desk.seed(images=1)
    desk.standins.fault("vision_analysis", "slow", operation="list", seconds=30, count=None)
    first = start(config)
    try:
        wait_for(lambda: desk.standins.calls("vision_analysis", "list"), "the list to be asked for", 60)
    finally:
        first.send_signal(how)
        first.wait(20)
    stopped = executions_of(desk)
    assert [one[0] for one in stopped] == ["running" if how is signal.SIGKILL else "failed"]
    desk.standins.admin("DELETE", "faults")
    ran = invoke(config)
    assert ran.exit_code == 0, ran.output
    assert executions_of(desk) == [("failed", "The command ended before it had the list."), ("success", None)]
    assert len(desk.reports) == 1


def executions_of(desk: Desk) -> list[tuple[str, str | None]]:
    """State and error of all, oldest first."""
    return [(row.status, row.error) for row in desk.sql("select * from vision_executions order by id")]


def start(config: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", RUN, "run", "--config", str(config)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_backfill_takes_a_cron_jobs_analyses_and_a_commands(desk: Desk, config: Path) -> None:
    desk.seed(images=1)
    assert desk.execute()["status"] == "success"
    for _ in range(2):
        desk.seed(images=1)
        assert invoke(config).exit_code == 0
    today = datetime.now(UTC).date().isoformat()
    assert desk.backfill(today).success
    assert (len(desk.reports), len(desk.backend.orders)) == (6, 6)
