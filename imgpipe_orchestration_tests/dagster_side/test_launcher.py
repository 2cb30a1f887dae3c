"""The run launcher: a run is forked, can be cancelled, and one that was killed is not taken for running."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import dagster as dg
import psutil
import psycopg
import pytest
import sqlalchemy
from dagster._core.launcher import WorkerStatus

from imgpipe_orchestration.dagster_side.launcher import _WARM, ForkedRunLauncher, WarmProcess
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.telemetry.processes import PROCESS_TAG
from imgpipe_orchestration_tests.dagster_side import jobs
from imgpipe_orchestration_tests.dagster_side.instances import (
    becomes,
    configure,
    health,
    launch,
    processes,
    run_of,
    told,
)
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.parts import ensure_database

pytestmark = pytest.mark.xdist_group("launcher")  # what forks their runs takes seconds of imports to start

STARTED, SUCCESS, CANCELED = (
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.CANCELED,
)


@pytest.fixture(scope="module")
def instance(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """An instance configured as dagster.yaml does it: storage in PostgreSQL, runs by our launcher."""
    home = tmp_path_factory.mktemp("dagster")
    url = ensure_database(postgres_server, "dagster_runs")
    launcher = "run_launcher: {module: imgpipe_orchestration.dagster_side.launcher, class: ForkedRunLauncher}"
    configure(home, url, launcher)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def launcher(instance: dg.DagsterInstance) -> ForkedRunLauncher:
    assert isinstance(instance.run_launcher, ForkedRunLauncher)
    return instance.run_launcher


def started(instance: dg.DagsterInstance, run_id: str) -> psutil.Process:
    becomes(instance, run_id, STARTED)
    return psutil.Process(json.loads(run_of(instance, run_id).tags[PROCESS_TAG])["pid"])


def test_runs_succeed_in_processes_forked_from_one_parent(instance: dg.DagsterInstance) -> None:
    ids = [launch(instance, jobs.quick) for _ in range(2)]
    for run_id in ids:
        becomes(instance, run_id, SUCCESS)
    (first, its_parent), (second, other_parent) = [processes(instance, run_id) for run_id in ids]
    assert first != second
    assert its_parent == other_parent != os.getpid()
    assert psutil.Process(its_parent).num_threads() == 1, "a lock that another thread held would stay locked for ever"


def test_a_postgresql_that_was_restarted_costs_the_daemon_a_look_and_no_run(
    instance: dg.DagsterInstance, postgres_server: Postgres
) -> None:
    becomes(instance, launch(instance, jobs.quick), SUCCESS)
    cut_off = """select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and pid <> pg_backend_pid()"""
    with psycopg.connect(ensure_database(postgres_server, "dagster_runs")) as connection:
        assert connection.execute(cut_off).rowcount > 0, "no connection was kept open"
    with pytest.raises(sqlalchemy.exc.OperationalError):
        instance.get_runs(limit=1)  # the daemon looks for runs to launch every second
    becomes(instance, launch(instance, jobs.quick), SUCCESS)


def test_a_forked_run_logs_as_the_settings_say(instance: dg.DagsterInstance) -> None:
    run_id = becomes(instance, launch(instance, jobs.logged), SUCCESS)
    assert told(instance, run_id, "formatters") == ["TextFormatter"]


def test_a_run_sends_its_spans_before_its_process_ends(instance: dg.DagsterInstance) -> None:
    """They go out in the background every five seconds; a forked process ends without unwinding."""
    with serving(lambda handler, _: reply(handler, b"")) as collector:
        becomes(instance, launch(instance, jobs.traced, **{jobs.COLLECTOR_TAG: collector.url}), SUCCESS)
        wait_for(lambda: any(b"left by a run" in body for _, _, body in collector.requests), "the span")


def test_a_run_of_another_code_location_is_carried_out_by_that_ones_python(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nTHEIRS=yes exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    run_id = becomes(instance, launch(instance, jobs.quick, python=str(python)), SUCCESS)
    pid = json.loads(run_of(instance, run_id).tags[PROCESS_TAG])["pid"]
    assert told(instance, run_id, "theirs", "pid") == ["yes", str(pid)]


def test_a_cancelled_run_ends_as_cancelled(instance: dg.DagsterInstance, launcher: ForkedRunLauncher) -> None:
    run_id = launch(instance, jobs.endless)
    process = started(instance, run_id)
    assert launcher.terminate(run_id)
    becomes(instance, run_id, CANCELED)
    wait_for(lambda: not process.is_running(), "its process to end")
    assert not launcher.terminate(run_id)


def test_a_cancelled_run_that_does_not_end_is_killed(
    instance: dg.DagsterInstance, launcher: ForkedRunLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgpipe_orchestration.dagster_side.launcher.KILLED_AFTER_SECONDS", 10.0)
    process = started(instance, run_id := launch(instance, jobs.deaf, **{jobs.DEAF_TAG: str(tmp_path / "deaf")}))
    wait_for((tmp_path / "deaf").exists, "the run to be deaf to interrupts")
    assert launcher.terminate(run_id)
    with pytest.raises(psutil.TimeoutExpired):
        process.wait(1)
    wait_for(lambda: not process.is_running(), "its process to end")


def test_a_killed_run_is_seen_as_failed(instance: dg.DagsterInstance) -> None:
    run_id = launch(instance, jobs.endless)
    process = started(instance, run_id)
    assert health(instance, run_id) is WorkerStatus.RUNNING
    process.send_signal(signal.SIGKILL)
    wait_for(lambda: health(instance, run_id) is WorkerStatus.FAILED, "the death to be noticed")


def test_a_later_owner_of_the_pid_is_not_taken_for_the_run(
    instance: dg.DagsterInstance, launcher: ForkedRunLauncher
) -> None:
    run_id = becomes(instance, launch(instance, jobs.quick), SUCCESS)
    run = run_of(instance, run_id)
    described = json.loads(run.tags[PROCESS_TAG]) | {"pid": os.getpid()}
    assert launcher.check_run_worker_health(run.with_tags({PROCESS_TAG: json.dumps(described)})).status is (
        WorkerStatus.FAILED
    )


def test_two_launchers_of_a_process_fork_from_one(
    instance: dg.DagsterInstance, launcher: ForkedRunLauncher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's threads make one each where several runs wait as it starts."""
    runs = [launch(instance, jobs.endless)]
    other = ForkedRunLauncher()
    other.register_instance(instance)
    with monkeypatch.context() as patch:
        patch.setattr(instance, "_run_launcher", other)
        runs.append(launch(instance, jobs.endless))
    assert len({started(instance, run).ppid() for run in runs}) == 1
    for run in runs:
        launcher.terminate(run)
        becomes(instance, run, CANCELED)


def test_a_forkserver_may_take_long_to_start(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an overloaded machine; a warm one that is silent as long would be replaced."""
    module = "imgpipe_orchestration.dagster_side.launcher"
    warm = WarmProcess()
    monkeypatch.setattr(f"{module}._WARM", warm)
    monkeypatch.setattr(f"{module}.ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(subprocess, "Popen", slowly := Mock(side_effect=subprocess.Popen))
    becomes(instance, launch(instance, jobs.quick), SUCCESS)
    assert slowly.call_count == 1
    warm.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["dies", "hangs"])
def test_a_forkserver_that_dies_or_hangs_is_replaced(instance: dg.DagsterInstance, how: str) -> None:
    process = started(instance, first := launch(instance, jobs.endless))
    parent = process.parent()
    assert parent is not None
    gone = lambda: not parent.is_running() or parent.status() == psutil.STATUS_ZOMBIE  # noqa: E731
    if how == "dies":
        parent.kill()
        wait_for(gone, "its death")
    else:
        _WARM._socket.settimeout(1)
        parent.suspend()
    becomes(instance, launch(instance, jobs.quick), SUCCESS)
    wait_for(gone, "the end of the hung one")
    assert run_of(instance, first).status is STARTED, "the runs of the dead one go on"
    instance.run_launcher.terminate(first)
    becomes(instance, first, CANCELED)


def test_a_run_of_the_dagster_command_is_known_by_its_process_and_its_death_is_seen(
    instance: dg.DagsterInstance, postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dagster asset materialize` and `dagster job execute` work in their own process, which no launcher began."""
    monkeypatch.setenv("DATABASE_URL", postgres_server.url)
    resources = {"backends": BackendsResource()}
    done = jobs.typed.execute_in_process(instance=instance, resources=resources)
    assert told(instance, done.run_id, "health") == [WorkerStatus.RUNNING.value]
    later = json.loads(run_of(instance, done.run_id).tags[PROCESS_TAG]) | {"started": 0.0}
    instance.add_run_tags(done.run_id, {PROCESS_TAG: json.dumps(later)})
    assert health(instance, done.run_id) is WorkerStatus.FAILED
    without_our_resource = instance.create_run_for_job(jobs.quick, status=STARTED)
    assert health(instance, without_our_resource.run_id) is WorkerStatus.RUNNING
