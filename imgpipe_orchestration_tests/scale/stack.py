"""Several machines on one: two gateways, a daemon and Celery workers, each a process, over shared servers."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from imgpipe_orchestration.dagster_side.celery_launcher import WorkersRunLauncher
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.plan import make_plan
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.services import CodeServer, Daemon, Gateway, prepare_dagster_home
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.devstack.running import clean_environment
from imgpipe_orchestration_tests.parts import running, stop
from imgpipe_orchestration_tests.servers import RedisServer, Worker
from imgpipe_orchestration_tests.standins.server import partners

LOGS = "dagster-logs"
DEPLOYED = Path(__file__).parents[2] / "deploy" / "dagster.yaml"


class Machines(Stack):
    """What clients see, with two gateways that take turns; and what the tests look at behind them."""

    def __init__(
        self, environment: Mapping[str, str], gateways: list[str], home: Path, workers: list[Worker], stand_ins: str
    ) -> None:
        super().__init__(environment)
        self.gateways = gateways
        self.workers = workers
        self._home = home
        self._stand_ins = stand_ins
        self._asked = 0
        self.services = Services(load(dict(environment)))

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """By whichever gateway's turn it is, whatever gateway a URL names."""
        self._asked += 1
        gateway = self.gateways[self._asked % len(self.gateways)]
        for one in self.gateways:
            path = path.removeprefix(one)
        return self.http.request(method, path if "://" in path else gateway + path, timeout=60, **options)

    def stand_in(self, method: str, path: str, body: Any = None) -> Any:
        """How the stand-in partners are steered and asked."""
        answer = requests.request(method, f"{self._stand_ins}/_standin/{path}", json=body, timeout=20)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs_on(self, worker: Worker) -> list[str]:
        """Ids of the runs whose processes are under this worker."""
        assert worker.pid is not None
        below = {process.pid for process in psutil.Process(worker.pid).children(recursive=True)}
        with DagsterInstance.from_config(str(self._home)) as instance:
            launcher = instance.run_launcher
            assert isinstance(launcher, WorkersRunLauncher)
            runs = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTED]))
            said = {run.run_id: launcher.celery.backend.get_task_meta(run.run_id)["result"] for run in runs}
        return [run_id for run_id, sign in said.items() if isinstance(sign, dict) and sign.get("pid") in below]

    def status_of(self, run_id: str) -> DagsterRunStatus:
        with DagsterInstance.from_config(str(self._home)) as instance:
            run = instance.get_run_by_id(run_id)
        assert run is not None
        return run.status


@contextmanager
def machines(folder: Path, patch: pytest.MonkeyPatch, *, workers: int, **settings: str) -> Iterator[Machines]:
    """Everything up, with the embedded servers, the stand-in partners and deploy/dagster.yaml."""
    data = folder / "data"
    data.mkdir()
    with ExitStack() as started:
        redis = started.enter_context(running(RedisServer(folder / "redis", free_port())))
        queues = {"CELERY_BROKER_URL": redis.url}
        ports = {name: str(free_port()) for name in ("GATEWAY_PORT", "FLASK_PORT", "DAGSTER_WEBSERVER_PORT")}
        faulty = started.enter_context(partners(folder))
        settings = {"RUNS_PER_PIPELINE": str(workers), **faulty.settings, **settings}
        given = clean_environment(**queues, **ports, **settings)
        plan = make_plan(data, given, gateway_port=0)
        keys = {
            "AWS_ACCESS_KEY_ID": plan.settings.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": plan.settings.s3_secret_key,
        }
        plan.shared.update(keys)
        for part in plan.backends:
            started.enter_context(running(part))
        provision = [sys.executable, "-m", "imgpipe_orchestration.devstack.provision"]
        subprocess.run(provision, env=plan.shared, check=True)
        with closing(Services(plan.settings)) as services:
            services.objects.bucket(LOGS).ensure()
        home = data / "dagster"
        code_port = plan.ports.chosen["code-server"]
        prepare_dagster_home(home, DEPLOYED, code_port)
        second = free_port()
        other = {**plan.shared, "GATEWAY_PORT": str(second), "FLASK_PORT": str(second)}
        gateways = [
            Gateway(data / "gateway", plan.settings.gateway_port, environ=plan.shared),
            Gateway(data / "gateway-2", second, environ=other),
        ]
        some = [Worker(data / f"worker-{number}", environ=plan.shared, concurrency=4) for number in range(workers)]
        daemon = Daemon(home, environ=plan.shared)
        parts: list[Part] = [*gateways, *some, CodeServer(home, code_port, environ=plan.shared)]
        for part in parts:
            part.start()
            started.callback(stop, part)
        for part in parts:
            part.wait_until_ready()
        started.enter_context(running(daemon))
        s3 = {"S3_ENDPOINT": plan.settings.s3_endpoint, **keys}
        for name, value in (queues | s3 | {"DAGSTER_PG_URL": plan.settings.dagster_pg_url}).items():
            patch.setenv(name, value)  # Dagster reads its configuration's `env:` from our own environment
        machines = Machines(plan.environment, [gateway.url for gateway in gateways], home, some, faulty.url)
        with closing(machines.services):
            yield machines
