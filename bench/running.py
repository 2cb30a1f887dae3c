"""What the benches share: options, a stack or servers on a fresh folder, two things measured in turn, the bars.

The tests' helpers are found by PYTHONPATH, as `make bench` has it.
"""

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.devstack.running import graphql, wait_for, whole
from imgpipe_orchestration_tests.parts import QuickPostgres, ensure_database, running
from imgpipe_orchestration_tests.standins.server import partners


def options(about: str | None, **defaults: int | float) -> Any:
    """The command line: a number for each name, as in `--rounds 3`."""
    parser = argparse.ArgumentParser(description=about)
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    return parser.parse_args()


@contextmanager
def stack_with_partners(**settings: str) -> Iterator[Stack]:
    """A `running_stack` whose partners `standins` steers."""
    with (
        tempfile.TemporaryDirectory() as folder,
        partners(Path(folder)) as faulty,
        running_stack(**faulty.settings, **settings) as stack,
    ):
        yield stack


@contextmanager
def running_stack(**settings: str) -> Iterator[Stack]:
    """`imgpipe up --port 0` with no other settings, stopped and removed at the end, also after SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with (
        tempfile.TemporaryDirectory(prefix="imgpipe-bench-", ignore_cleanup_errors=True) as folder,
        whole(Path(folder).resolve() / "data", "--port", "0", **settings) as up,
    ):
        yield Stack(up.environment)


def rows(stack: Stack, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """Rows of the project's database."""
    with psycopg.connect(stack.environment["DATABASE_URL"]) as connection:
        return connection.execute(query.encode(), values).fetchall()


def launch(stack: Stack, job: str, tags: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a job to its end; its times."""
    said = [{"key": key, "value": value} for key, value in (tags or {}).items()]
    selector = {"repositoryLocationName": "imgpipe", "repositoryName": "__repository__", "jobName": job}
    asked = graphql(
        stack,
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
        run: dict[str, Any] = graphql(stack, query, id=run_id)["runOrError"]
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
    return str(stack.operated("POST", "/cron-jobs", job)["job_id"])


@contextmanager
def servers(*, durable: bool = True) -> Iterator[tuple[Postgres, S3]]:
    """PostgreSQL and the object store, without a stack.

    Args:
        durable: False where commits are not what is measured.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        s3 = S3(folder / "s3", free_port(), access_key="bench-key", secret_key="bench-secret")
        postgres = (Postgres if durable else QuickPostgres)(folder / "postgres", free_port())
        with running(postgres), running(s3):
            yield postgres, s3


@contextmanager
def services(postgres: Postgres, s3: S3 | None, name: str, **settings: Any) -> Iterator[Services]:
    """Services on a database and in a folder of their own."""
    if s3 is not None:
        settings |= {"s3_endpoint": s3.url, "s3_access_key": s3.access_key, "s3_secret_key": s3.secret_key}
    settings |= {"database_url": ensure_database(postgres, name), "imgpipe_data_dir": postgres.folder.parent / name}
    with closing(Services(Settings(**settings))) as made:
        upgrade(made.engine)
        yield made


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
