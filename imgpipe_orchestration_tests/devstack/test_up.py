"""`imgpipe up` with real processes: it restarts what dies, refuses a second one, and opens its data after any death."""

import json
import os
import re
import shlex
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import requests

from imgpipe_orchestration.devstack.ports import is_free
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.conftest import S3Access, open_folder
from imgpipe_orchestration_tests.devstack.running import (
    IMGPIPE,
    PARTNERS_ELSEWHERE,
    Up,
    clean_environment,
    imgpipe,
    up,
    wait_for,
)


@pytest.fixture(scope="module")
def stack() -> Iterator[Up]:
    with open_folder() as folder, up(folder / "data", "--no-dagster", "--port", "0") as running:
        yield running


def test_up_says_of_each_part_when_it_answers(stack: Up) -> None:
    for port in (stack.environment["GATEWAY_PORT"], stack.environment["FLASK_PORT"]):
        assert requests.get(f"http://127.0.0.1:{port}/health", timeout=10).ok
    started = stack.output.partition("Ready after")[0]
    assert all(f"{name} answers\n" in started for name in ("postgres", "s3", "mongo", "gateway"))
    url = re.escape(stack.environment["DAGSTER_URL"])
    assert re.search(rf"dagster-webserver .* {url} .* pipelines, runs, schedules \(yours\)", stack.output)


def test_env_prints_every_name_that_others_rely_on(stack: Up) -> None:
    shown = json.loads(imgpipe("env", "--json", "--data", str(stack.data_dir)).stdout)
    assert {name.upper() for name in Settings.model_fields} | {"DAGSTER_HOME"} == set(shown)
    exports = imgpipe("env", "--data", str(stack.data_dir)).stdout
    script = exports + '\nprintf "%s" "$DATABASE_URL"'
    in_shell = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert in_shell.stdout == stack.environment["DATABASE_URL"] == shown["DATABASE_URL"]


def test_env_exempts_the_stack_from_a_proxy_in_either_form(stack: Up) -> None:
    behind = {**clean_environment(), "http_proxy": "http://127.0.0.1:9", "no_proxy": "intranet.example"}
    shown = json.loads(imgpipe("env", "--json", "--data", str(stack.data_dir), environ=behind).stdout)
    exports = imgpipe("env", "--data", str(stack.data_dir), environ=behind).stdout
    for name in ("no_proxy", "NO_PROXY"):
        assert shown[name] == "intranet.example,127.0.0.1,localhost"
        assert f"export {name}={shown[name]}\n" in exports


def test_after_env_the_commands_are_found_and_what_was_found_before_stays(stack: Up) -> None:
    bare = {**clean_environment(), "PATH": "/usr/bin:/bin"}
    exports = imgpipe("env", "--data", str(stack.data_dir), environ=bare).stdout
    script = f'{exports}\ncommand -v imgpipe; command -v dagster; echo "$PATH"'
    found = subprocess.run(["sh", "-c", script], env=bare, capture_output=True, text=True, check=True).stdout.split()
    scripts = sysconfig.get_path("scripts")
    assert found == [f"{scripts}/imgpipe", f"{scripts}/dagster", f"/usr/bin:/bin:{scripts}"]
    there = {**bare, "PATH": f"/usr/bin:/bin:{scripts}"}
    assert "PATH=" not in imgpipe("env", "--data", str(stack.data_dir), environ=there).stdout


def test_a_killed_gateway_is_started_again_and_it_says_so(stack: Up) -> None:
    killed = stack.part("gateway")["pid"]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: stack.part("gateway")["restarts"] == 1, "the restarted gateway")
    log = stack.data_dir / "logs" / "gateway.log"
    assert f"gateway ended (killed by SIGKILL); starting it again. Log: {log}" in stack.output
    assert stack.part("gateway")["pid"] != killed
    wait_for(lambda: healthy(stack.environment["GATEWAY_URL"]), "its answer")


def healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=10).ok
    except requests.RequestException:
        return False


def test_a_killed_postgres_is_started_again_with_its_rows(stack: Up) -> None:
    with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE survivors AS SELECT 42 AS n")
    os.kill(stack.part("postgres")["pid"], signal.SIGKILL)
    wait_for(lambda: stack.part("postgres")["restarts"] >= 1, "the restarted PostgreSQL")
    wait_for(lambda: answers(stack.environment["DATABASE_URL"]), "its answer")
    with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT n FROM survivors").fetchone() == (42,)


def answers(database_url: str) -> bool:
    try:
        psycopg.connect(database_url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_part_that_cannot_be_started_again_is_tried_until_it_can(stack: Up) -> None:
    log = stack.data_dir / "logs" / "gateway.log"
    aside = log.rename(log.with_suffix(".aside"))
    log.mkdir()  # stands for a full disk, or for too few descriptors: the start of the process fails in ours
    restarts = stack.part("gateway")["restarts"]
    os.kill(stack.part("gateway")["pid"], signal.SIGKILL)
    wait_for(lambda: "gateway cannot be started ([Errno 21] Is a directory" in stack.output, "the failed start")
    log.rmdir()
    aside.rename(log)
    wait_for(lambda: stack.part("gateway")["restarts"] > restarts, "the restarted gateway")
    wait_for(lambda: not is_free(int(stack.environment["GATEWAY_PORT"])), "its port")


def test_logs_and_stack_json_are_not_for_others_to_read(stack: Up) -> None:
    logs = [*(stack.data_dir / "logs").glob("*.log"), stack.data_dir / "mongo" / "nx.log"]
    assert len(logs) > 4
    assert {log: stat.S_IMODE(log.stat().st_mode) for log in logs} == dict.fromkeys(logs, 0o640)
    assert stat.S_IMODE((stack.data_dir / "logs").stat().st_mode) == 0o700
    assert (stack.data_dir / "stack.json").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_with_json_the_lines_of_dagster_s_processes_are_json_and_its_ticks_are_in_health(open_folder: Path) -> None:
    with up(open_folder / "data", "--port", "0", LOG_FORMAT="json", DAGSTER_WEBSERVER_PORT="0") as running:
        health = f"{running.environment['GATEWAY_URL']}/health"
        wait_for(lambda: ticks(health), "the daemon's tick to show in /health")
        for part in ("dagster-webserver", "dagster-daemon", "code-server"):
            lines = (open_folder / "data" / "logs" / f"{part}.log").read_text().splitlines()
            assert all(isinstance(json.loads(line), dict) for line in lines), lines
        assert (open_folder / "data" / "logs" / "dagster-webserver.log").read_text()


def ticks(health: str) -> str:
    said = str(requests.get(health, timeout=10).json()["checks"]["dagster_daemon"])
    return said if said.startswith("20") else ""


@pytest.mark.timeout(400)
def test_two_stacks_run_side_by_side_and_ctrl_c_leaves_nothing_of_the_one_it_hits(stack: Up, open_folder: Path) -> None:
    """Started with SIGINT ignored, as a non-interactive shell starts its background jobs."""
    taken = stack.environment["GATEWAY_PORT"]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        environ = clean_environment(**PARTNERS_ELSEWHERE)
        other = Up(open_folder / "other", "--no-dagster", "--port", taken, environ=environ)
    finally:
        signal.signal(signal.SIGINT, before)
    other.wait_until_ready()
    assert f"port {taken} is taken; gateway uses" in other.output
    names = ("GATEWAY_URL", "DATABASE_URL", "S3_ENDPOINT", "S3_PUBLIC_ENDPOINT", "MONGODB_URL")
    theirs = other.environment
    assert {stack.environment[name] for name in names}.isdisjoint(theirs[name] for name in names)

    assert other.interrupt() == 0
    assert other.processes() == []
    assert all(is_free(int(theirs[name])) for name in ("GATEWAY_PORT", "FLASK_PORT"))
    assert not (other.data_dir / "stack.json").exists()
    assert other.output.rstrip().endswith("stopped")


@pytest.mark.slow
def test_after_any_death_the_next_up_opens_the_data(open_folder: Path) -> None:
    with up(open_folder / "data", "--no-dagster", "--port", "0") as first:
        before = first.environment
        with psycopg.connect(before["DATABASE_URL"]) as connection:
            connection.execute("CREATE TABLE survivors AS SELECT 42 AS n")
        for process in (psutil.Process(first.process.pid), *first.processes()):
            process.kill()
        first.process.wait()
    with up(open_folder / "data", "--no-dagster") as second:
        assert second.environment["DATABASE_URL"] == before["DATABASE_URL"]
        assert second.environment["GATEWAY_PORT"] == before["GATEWAY_PORT"]
        with psycopg.connect(second.environment["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT n FROM survivors").fetchone() == (42,)
        second.process.kill()
        second.process.wait()
    assert imgpipe("env", "--data", str(second.data_dir)).returncode == 3
    with up(open_folder / "data", "--no-dagster") as third:  # its parts' predecessors may still be ending
        with psycopg.connect(third.environment["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT n FROM survivors").fetchone() == (42,)
        third.process.kill()
        third.process.wait()
        if sys.platform == "linux":  # elsewhere they run on
            wait_for(lambda: not third.processes(), "the parts to end with their supervisor")


@pytest.mark.slow
def test_named_services_replace_the_embedded_ones(
    open_folder: Path, postgres_url: str, s3: S3Access, mongo_url: str
) -> None:
    named = {
        "DATABASE_URL": postgres_url,
        "S3_ENDPOINT": s3.endpoint,
        "S3_ACCESS_KEY": s3.access_key,
        "S3_SECRET_KEY": s3.secret_key,
        "MEDIA_BUCKET_NAME": "named-media-bucket",
        "MONGODB_URL": mongo_url,
    }
    with psycopg.connect(postgres_url) as connection:
        connection.execute(
            "INSERT INTO pending_images (user_id, image_path, created_at) VALUES (1, '/x', '2026-01-04 00:30+01')"
        )
    with up(open_folder / "data", "--no-dagster", "--port", "0", **named) as running:
        assert running.environment["MEDIA_FIRST_DAY"] == "2026-01-02", "the day before the oldest upload, by UTC"
        assert [part["name"] for part in running.stack()["parts"]] == ["gateway"]
        assert running.environment["DATABASE_URL"] == postgres_url
        assert s3.client().head_bucket(Bucket="named-media-bucket")
        with psycopg.connect(postgres_url) as connection:
            assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
            assert connection.execute("SELECT to_regnamespace('dagster')").fetchone() == ("dagster",)
        down = imgpipe("down", "--data", str(running.data_dir))
        assert down.returncode == 0, down.stderr
        assert running.process.wait(60) == 0


def test_a_shell_with_the_settings_of_a_stack_starts_no_other(stack: Up, tmp_path: Path) -> None:
    exports = imgpipe("env", "--data", str(stack.data_dir)).stdout
    words = shlex.join([*IMGPIPE, "up", "--data", str(tmp_path)])
    typed = ["bash", "-c", f"{exports}\n{words}"]
    said = subprocess.run(typed, env=clean_environment(), capture_output=True, text=True, timeout=60, check=False)
    assert said.returncode == 2, said.stderr
    assert f"this shell has the settings of the stack on {stack.data_dir}" in said.stderr
    assert "start it in another shell" in said.stderr


def test_an_unreachable_database_is_named_and_nothing_is_left(open_folder: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"postgresql://user:hidden-password@127.0.0.1:{nobody.getsockname()[1]}/imgpipe"
        environ = clean_environment(**PARTNERS_ELSEWHERE, DATABASE_URL=url)
        failed = imgpipe("up", "--data", str(open_folder / "data"), "--no-dagster", "--port", "0", environ=environ)
    assert failed.returncode == 1
    assert "No connection to postgresql" in failed.stderr
    assert "hidden-password" not in failed.stderr
