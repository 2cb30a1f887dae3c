"""What the benches share: a stack on a fresh folder, what its databases say happened, databases and services without a
stack, two things measured in turn, the line that judges a figure."""

from __future__ import annotations

import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Engine

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.storage.rows import connect


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


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server of PostgreSQL on a fresh folder, as quick as it is without durability."""
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "data", free_port(), durable=False) as server:
        yield server


@contextmanager
def database(server: Postgres, name: str, **options: Any) -> Iterator[Engine]:
    """A fresh database with our tables. `options`: of `rows.connect`."""
    engine = connect(server.ensure_database(name), **options)
    try:
        upgrade(engine)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def services_of(settings: Settings) -> Iterator[Services]:
    """Services on a fresh database, closed at the end."""
    with closing(Services(settings)) as services:
        upgrade(services.engine)
        yield services


def wait_for(condition: Callable[[], Any], what: str, seconds: float, *, every: float = 0.1) -> Any:
    """The first true value of `condition`, asked every so many seconds."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"gave up after {seconds:g} s waiting for {what}")
        time.sleep(every)
    return value


def interleaved(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[float, float]:
    """Medians of both, asked in turn; the first round only warms up."""
    pairs = [(first(), second()) for _ in range(rounds + 1)][1:]
    return statistics.median(one for one, _ in pairs), statistics.median(other for _, other in pairs)


def bar(name: str, value: float, limit: float, *, at_least: bool = False) -> None:
    """The line by which a bench is judged."""
    sign, good = (">=", value >= limit) if at_least else ("<=", value <= limit)
    print(f"bar {name} {value:.3f} {sign} {limit:g} {'ok' if good else 'short'}", flush=True)
