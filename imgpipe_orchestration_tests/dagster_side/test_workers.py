"""Runs by workers: taken out of a queue, forked, cancelled; and what becomes of them when their worker is killed."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
import yaml
from dagster._core.launcher import LaunchRunContext, WorkerStatus
from kombu.exceptions import OperationalError
from redis.exceptions import TimeoutError as RedisTimeout

from imgpipe_orchestration.dagster_side.celery_launcher import BEAT_SECONDS, SILENCE_SECONDS, WorkersRunLauncher
from imgpipe_orchestration.dagster_side.run_tags import QUEUE_TAG
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration_tests.dagster_side import jobs
from imgpipe_orchestration_tests.dagster_side.instances import becomes, configure, health, launch, processes, run_of
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.parts import ensure_database, running
from imgpipe_orchestration_tests.servers import RabbitMQ, RedisServer, Worker

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
]


DEPLOYED = Path(__file__).parents[2] / "deploy" / "dagster.yaml"
_numbers = itertools.count()

over_redis = pytest.mark.parametrize("broker", ["redis"], indirect=True, scope="module")
over_each = pytest.mark.parametrize(
    "broker",
    ["redis", pytest.param("rabbitmq", marks=pytest.mark.xdist_group("rabbitmq"))],
    indirect=True,
    scope="module",
)
"""What a broker may do otherwise than another. RabbitMQ takes its time to start: once, in one process."""


@pytest.fixture(scope="module")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Part]:
    server: type[Part] = {"redis": RedisServer, "rabbitmq": RabbitMQ}[request.param]
    with running(server(tmp_path_factory.mktemp(request.param) / "data", free_port())) as started:
        yield started


@pytest.fixture(scope="module")
def home(postgres_server: Postgres, broker: Part, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME configured as deploy/dagster.yaml does it; results are kept by Redis, or beside RabbitMQ by
    PostgreSQL."""
    home = tmp_path_factory.mktemp("dagster")
    url = ensure_database(postgres_server, f"dagster_workers_{broker.name}")
    results = broker.url if broker.name == "redis" else "db+" + ensure_database(postgres_server, "celery_results")
    launcher = yaml.safe_load(DEPLOYED.read_text())["run_launcher"]
    launcher["config"] |= {"broker": broker.url, "backend": results}
    configure(home, url, yaml.safe_dump({"run_launcher": launcher}))
    return home


@pytest.fixture(scope="module")
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def launcher(instance: dg.DagsterInstance) -> WorkersRunLauncher:
    assert isinstance(instance.run_launcher, WorkersRunLauncher)
    return instance.run_launcher


@contextmanager
def working(home: Path, queues: str, concurrency: int = 1) -> Iterator[Worker]:
    environ = {**os.environ, "DAGSTER_HOME": str(home)}
    folder = home / f"{queues}-{next(_numbers)}"
    with running(Worker(folder, environ=environ, queues=queues, concurrency=concurrency)) as started:
        yield started


@pytest.fixture(scope="module")
def worker(home: Path) -> Iterator[Worker]:
    with working(home, "cpu", 2) as started:
        yield started


def queued(instance: dg.DagsterInstance, job: dg.JobDefinition, queue: str = "cpu") -> str:
    return launch(instance, job, **{QUEUE_TAG: queue})


def under_way(instance: dg.DagsterInstance, queue: str = "cpu") -> str:
    """A run that has begun and does not end by itself."""
    return becomes(instance, queued(instance, jobs.endless, queue), dg.DagsterRunStatus.STARTED)


def process_of(launcher: WorkersRunLauncher, run_id: str) -> psutil.Process:
    """What its worker says of it."""
    wait_for(lambda: launcher.celery.backend.get_task_meta(run_id)["result"], "a sign of life")
    return psutil.Process(launcher.celery.backend.get_task_meta(run_id)["result"]["pid"])


@over_each
def test_runs_succeed_in_processes_forked_from_one_parent(instance: dg.DagsterInstance, worker: Worker) -> None:
    ids = [queued(instance, jobs.quick) for _ in range(2)]
    for run_id in ids:
        becomes(instance, run_id, dg.DagsterRunStatus.SUCCESS)
    (first, its_parent), (second, other_parent) = [processes(instance, run_id) for run_id in ids]
    assert first != second
    assert its_parent == other_parent
    assert its_parent in {child.pid for child in psutil.Process(worker.pid).children()}


@over_each
def test_a_worker_leaves_other_queues_alone(home: Path, instance: dg.DagsterInstance, worker: Worker) -> None:
    paid = queued(instance, jobs.quick, "paid")
    becomes(instance, queued(instance, jobs.quick), dg.DagsterRunStatus.SUCCESS)
    assert run_of(instance, paid).status is dg.DagsterRunStatus.STARTING
    with working(home, "network,paid"):
        becomes(instance, paid, dg.DagsterRunStatus.SUCCESS)


@over_each
def test_a_cancelled_run_ends_as_cancelled(
    instance: dg.DagsterInstance, launcher: WorkersRunLauncher, worker: Worker
) -> None:
    run_id = under_way(instance)
    process = process_of(launcher, run_id)
    assert launcher.terminate(run_id)
    becomes(instance, run_id, dg.DagsterRunStatus.CANCELED)
    wait_for(lambda: not process.is_running(), "its process to end")
    assert not launcher.terminate(run_id)


@over_redis
def test_a_killed_run_is_seen_as_failed(
    instance: dg.DagsterInstance, launcher: WorkersRunLauncher, worker: Worker
) -> None:
    run_id = under_way(instance)
    process = process_of(launcher, run_id)
    assert health(instance, run_id) is WorkerStatus.RUNNING
    process.kill()
    wait_for(lambda: health(instance, run_id) is WorkerStatus.FAILED, "the death to be noticed")


@over_redis
def test_the_runs_of_a_worker_that_was_killed_alone_are_interrupted(
    home: Path, instance: dg.DagsterInstance, launcher: WorkersRunLauncher
) -> None:
    with working(home, "network") as doomed:
        run_id = under_way(instance, "network")
        process = process_of(launcher, run_id)
        assert doomed.pid is not None
        os.kill(doomed.pid, signal.SIGKILL)
        becomes(instance, run_id, dg.DagsterRunStatus.FAILURE)
        wait_for(lambda: not process.is_running(), "its process to end")


@over_redis
def test_the_run_of_a_machine_that_vanished_is_seen_as_failed(
    home: Path, instance: dg.DagsterInstance, launcher: WorkersRunLauncher
) -> None:
    with working(home, "network") as doomed:
        run_id = under_way(instance, "network")
        process_of(launcher, run_id)
        assert health(instance, run_id) is WorkerStatus.RUNNING
        doomed.vanish()
    assert run_of(instance, run_id).status is dg.DagsterRunStatus.STARTED, "nobody was left to say so"
    failed = lambda: health(instance, run_id) is WorkerStatus.FAILED  # noqa: E731
    wait_for(failed, "the silence to be noticed", SILENCE_SECONDS + 60)


@over_redis
def test_a_worker_that_is_told_to_stop_gives_its_runs_up_and_ends(home: Path, instance: dg.DagsterInstance) -> None:
    with working(home, "network") as leaving:
        run_id = under_way(instance, "network")
        assert leaving.pid is not None
        os.kill(leaving.pid, signal.SIGTERM)
        becomes(instance, run_id, dg.DagsterRunStatus.FAILURE)
        wait_for(lambda: leaving.exit_code() is not None, "the worker to end")
        assert leaving.exit_code() == 0


@over_each
def test_a_run_that_is_delivered_twice_runs_once(
    instance: dg.DagsterInstance, launcher: WorkersRunLauncher, worker: Worker
) -> None:
    run_id = becomes(instance, queued(instance, jobs.quick), dg.DagsterRunStatus.SUCCESS)
    launcher.launch_run(LaunchRunContext(run_of(instance, run_id), workspace=None))
    becomes(instance, queued(instance, jobs.quick), dg.DagsterRunStatus.SUCCESS)
    assert len(instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_OUTPUT)) == 1


@over_each
def test_runs_go_on_while_the_broker_is_away(
    instance: dg.DagsterInstance, launcher: WorkersRunLauncher, worker: Worker, broker: Part
) -> None:
    run_id = under_way(instance)
    process = process_of(launcher, run_id)
    broker.kill()
    broker.start()
    broker.wait_until_ready()
    wait_for(lambda: launcher.celery.backend.get_task_meta(run_id)["result"], "a sign of life after it")
    assert process.is_running()
    launcher.terminate(run_id)
    becomes(instance, run_id, dg.DagsterRunStatus.CANCELED)
    becomes(instance, queued(instance, jobs.quick), dg.DagsterRunStatus.SUCCESS)


@over_redis
def test_a_redis_that_hangs_keeps_nobody_waiting(
    instance: dg.DagsterInstance, launcher: WorkersRunLauncher, worker: Worker, broker: Part
) -> None:
    run_id = under_way(instance)
    process_of(launcher, run_id)
    hung = psutil.Process(broker.pid)
    hung.suspend()
    try:
        time.sleep(BEAT_SECONDS)  # until the worker's next sign of life hangs
        launcher.terminate(run_id)
        becomes(instance, run_id, dg.DagsterRunStatus.CANCELED, 60)
        with pytest.raises(RedisTimeout):
            health(instance, run_id)
        with pytest.raises((OperationalError, RedisTimeout, RuntimeError)):  # wherever in Celery it hangs
            queued(instance, jobs.quick)
    finally:
        hung.resume()
    becomes(instance, queued(instance, jobs.quick), dg.DagsterRunStatus.SUCCESS)
