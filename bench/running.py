"""What the benches share: options, a stack or servers on a fresh folder, two things measured in turn, the bars."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.plan import STAND_INS
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.devstack.services import StandIns
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.migrations import upgrade


def options(about: str | None, **defaults: int | float) -> Any:
    """The command line: a number for each name, as in `--rounds 3`."""
    parser = argparse.ArgumentParser(description=about)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    return parser.parse_args()


class Partners(StandIns):
    """The stand-ins of the tests, which are slow or fail on request."""

    module = "imgpipe_orchestration_tests.standins"

    def __init__(self, folder: Path) -> None:
        root = Path(__file__).parents[1]  # the tests are not installed
        super().__init__(folder, free_port(), environ={**os.environ, "PYTHONPATH": str(root)})

    @property
    def settings(self) -> dict[str, str]:
        """What makes a stack ask them, in place of its own."""
        named = {name: value for one in STAND_INS for name, value in one.at(self.url).items()}
        return {**named, "ALLOWED_PRIVATE_HOSTS": self.url.removeprefix("http://")}


@contextmanager
def stack_with_partners() -> Iterator[Stack]:
    """A `running_stack` whose partners `standins` steers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Partners(Path(folder) / "partners") as partners,
        running_stack({**os.environ, **partners.settings}) as stack,
    ):
        yield stack


@contextmanager
def running_stack(environ: Mapping[str, str] | None = None) -> Iterator[Stack]:
    """`imgpipe up --port 0`, stopped and removed at the end, also when SIGTERM ends the bench.

    Args:
        environ: its whole environment (default: ours).
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="imgpipe-bench-")).resolve()
    data = folder / "data"
    with (folder / "up.log").open("wb") as log:
        command = [sys.executable, "-m", "imgpipe_orchestration.cli", "up", "--data", str(data), "--port", "0"]
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        while (stack := stackfile.read(data)) is None:
            if process.poll() is not None:
                raise SystemExit((folder / "up.log").read_text())
            time.sleep(0.1)
        yield Stack(stack.environment)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def rows(stack: Stack, query: str, *values: Any, dagster: bool = False) -> list[tuple[Any, ...]]:
    """Rows of the project's database, or of Dagster's."""
    name = "DAGSTER_PG_URL" if dagster else "DATABASE_URL"
    with psycopg.connect(stack.environment[name].replace("+psycopg2", "")) as connection:
        return connection.execute(query.encode(), values).fetchall()


def launch(stack: Stack, job: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a job to its end; its times."""
    said = [{"key": key, "value": value} for key, value in (tags or {}).items()]
    selector = {"repositoryLocationName": "imgpipe", "repositoryName": "__repository__", "jobName": job}
    asked = stack.graphql(
        """mutation Launch($job: JobOrPipelineSelector!, $tags: [ExecutionTag!]) {
            launchRun(executionParams: {selector: $job, runConfigData: {}, executionMetadata: {tags: $tags}}) {
                __typename ... on LaunchRunSuccess { run { runId } } } }""",
        job=selector,
        tags=said,
    )["launchRun"]
    return ended(stack, asked["run"]["runId"])


def ended(stack: Stack, run_id: str) -> dict[str, Any]:
    """Wait for a run's success; its times and those of its steps."""
    query = """query Run($id: ID!) { runOrError(runId: $id) { ... on Run {
        status creationTime startTime endTime stepStats { stepKey startTime endTime } } } }"""

    def over() -> dict[str, Any] | None:
        run: dict[str, Any] = stack.graphql(query, id=run_id)["runOrError"]
        if run["status"] in {"FAILURE", "CANCELED"}:
            raise SystemExit(f"run {run_id} ended as {run['status']}")
        return run if run["status"] == "SUCCESS" and run["endTime"] else None

    found: dict[str, Any] = wait_for(over, f"run {run_id}", 240)
    return found


def render_by_the_stack(stack: Stack, originals: list[bytes]) -> float:
    """Upload photos; seconds from the first request to the last `complete`."""
    query = "select status, count(*) from pending_images group by status"
    before = dict(rows(stack, query)).get("complete", 0)

    def upload(number: int) -> None:
        files = {"product_image": ("photo.jpg", originals[number], "image/jpeg")}
        stack.accepted("PATCH", "/users/me", headers=stack.user_headers(1 + number % 20), files=files)

    def settled() -> bool:
        counts = dict(rows(stack, query))
        if counts.get("failed"):
            raise SystemExit(f"photos failed: {rows(stack, 'select distinct error from media_files')}")
        return bool(counts.get("complete", 0) - before == len(originals))

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, range(len(originals))))
    # Each question opens a connection, on a machine that has no CPU time to spare.
    wait_for(settled, "all photos to be complete", 20.0 * len(originals) + 120, every=1.0)
    return time.monotonic() - began


def standins(stack: Stack, method: str, path: str, body: Any = None) -> Any:
    """Ask the stand-ins' own routes, of a `stack_with_partners`."""
    base = stack.environment["EXTERNAL_API_GET_URL"].partition("/vision-analysis/")[0]
    return stack.accepted(method, f"{base}/_standin/{path}", json=body).json()


def cron_job(stack: Stack, organization: str, **options: Any) -> str:
    """A cron job for vision reports that is only run when asked."""
    names = ("EXTERNAL_API_GET_URL", "EXTERNAL_API_POST_URL", "EXTERNAL_API_KEY", "BACKEND_API_URL")
    job = {name.lower(): stack.environment[name] for name in names}
    job |= {"name": "bench", "schedule": "0 0 1 1 *", "organization_id": organization, **options}
    answer = stack.accepted("POST", "/cron-jobs", json=job, headers=stack.admin_headers())
    return str(answer.json()["job_id"])


@contextmanager
def servers(*, durable: bool = True) -> Iterator[tuple[Postgres, S3]]:
    """PostgreSQL and the object store, without a stack.

    Args:
        durable: False where commits are not what is measured.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        s3 = S3(folder / "s3", free_port(), access_key="bench-key", secret_key="bench-secret")
        with Postgres(folder / "postgres", free_port(), durable=durable) as postgres, s3:
            yield postgres, s3


@contextmanager
def services(postgres: Postgres, s3: S3 | None, name: str, **settings: Any) -> Iterator[Services]:
    """Services on a database and in a folder of their own."""
    if s3 is not None:
        settings |= {"s3_endpoint": s3.url, "s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key}
    settings |= {"database_url": postgres.ensure_database(name), "imgpipe_data_dir": postgres.folder.parent / name}
    with closing(Services(Settings(**settings))) as made:
        upgrade(made.engine)
        yield made


def wait_for(condition: Callable[[], Any], what: str, seconds: float, *, every: float = 0.1) -> Any:
    """The first true value of `condition`, asked every so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {seconds:g} s waiting for {what}")
        time.sleep(every)
    return value


def interleaved(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, asked in turn, the order changing; the first round only warms up."""
    pairs = []
    for number in range(rounds + 1):
        if number % 2:
            pairs.append((first(), second()))
        else:
            other = second()
            pairs.append((first(), other))
    return statistics.median(one for one, _ in pairs[1:]), statistics.median(other for _, other in pairs[1:])


def bar(name: str, value: float, limit: float, *, at_least: bool = False) -> None:
    """The line by which a bench is judged."""
    sign, good = (">=", value >= limit) if at_least else ("<=", value <= limit)
    print(f"bar {name} {value:.3f} {sign} {limit:g} {'ok' if good else 'short'}", flush=True)
