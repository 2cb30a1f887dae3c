"""What the stack costs while there is nothing to do, and how soon a run begins.

Beside it runs Dagster by itself (webserver, daemon, code server and PostgreSQL, as its documentation deploys them) with
as many sensors, which return at once. Both settle, then the CPU time of all their processes is added up over the same
while, with that of processes which end in between: PostgreSQL starts one for each connection.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from running import bar, launch, options, running_stack

from imgpipe_orchestration.definitions import defs
from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.services import WORKSPACE, CodeServer, Daemon, Webserver
from imgpipe_orchestration_tests.parts import ensure_database, running

_DAGSTER_YAML = """
storage: { postgres: { postgres_url: { env: DAGSTER_PG_URL } } }
telemetry: { enabled: false }
"""


def main() -> None:
    arguments = options(__doc__, settle=45.0, seconds=120.0, rounds=12)
    with running_stack() as stack:
        # Of the first run what is slow once is not measured.
        runs = [launch(stack, "retention") for _ in range(arguments.rounds + 1)][1:]
        first = [min(step["startTime"] for step in run["stepStats"]) - run["creationTime"] for run in runs]
        bar("launch_to_first_step_seconds", statistics.median(first), 1.6)
        running = stackfile.read(Path(stack.environment["IMGPIPE_DATA_DIR"]))
        assert running is not None
        with bare_dagster() as bare:
            stacks = {"imgpipe": {"supervisor": running.pid} | {part["name"]: part["pid"] for part in running.parts}}
            stacks["Dagster by itself"] = bare
            time.sleep(arguments.settle)
            before = {name: snapshot(parts) for name, parts in stacks.items()}
            time.sleep(arguments.seconds)
            after = {name: snapshot(parts) for name, parts in stacks.items()}
        totals = [told(name, before[name], after[name], arguments.seconds) for name in stacks]
        bar("idle_cpu_over_dagster_by_itself", totals[0] / totals[1], 1.3)


def told(stack: str, before: dict[str, float], after: dict[str, float], seconds: float) -> float:
    """The CPU seconds an hour of all; prints those of each part."""
    hourly = {part: (spent - before[part]) * 3600 / seconds for part, spent in after.items()}
    print(stack, ", ".join(f"{part} {spent:.1f}" for part, spent in hourly.items()), "CPU s an hour")
    return sum(hourly.values())


def snapshot(parts: dict[str, int]) -> dict[str, float]:
    """CPU seconds of each part so far, those of its ended processes included.

    Args:
        parts: the pid of each part's first process, whose children belong to it unless they are parts themselves.
    """
    spent = {}
    for name, pid in parts.items():
        process = psutil.Process(pid)
        if name == "supervisor":  # its children are the parts
            spent[name] = sum(process.cpu_times()[:2])
            continue
        spent[name] = 0.0
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                spent[name] += sum(member.cpu_times()[:4])  # its own, and of its ended children
    return spent


class BareCodeServer(CodeServer):
    """Of bare_dagster.py."""

    def command(self) -> list[str]:
        project = str(Path(__file__).with_name("bare_dagster.py"))
        return [sys.executable, "-m", "dagster", "api", "grpc", "-f", project, "-p", str(self.port)]


@contextmanager
def bare_dagster() -> Iterator[dict[str, int]]:
    """Dagster by itself; gives the pid of each part."""
    with tempfile.TemporaryDirectory() as name, running(Postgres(Path(name) / "postgres", free_port())) as postgres:
        home = postgres.folder.parent / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text(_DAGSTER_YAML)
        code_port = free_port()
        (home / WORKSPACE).write_text(f"load_from: [grpc_server: {{host: 127.0.0.1, port: {code_port}}}]")
        environ = os.environ | {
            "DAGSTER_HOME": str(home),
            "DAGSTER_PG_URL": ensure_database(postgres, "dagster"),
            "SENSOR_SECONDS": ",".join(str(sensor.minimum_interval_seconds or 30) for sensor in defs.sensors or ()),
        }
        server, daemon = BareCodeServer(home, code_port, environ=environ), Daemon(home, environ=environ)
        webserver = Webserver(home, free_port(), environ=environ)
        with running(server), running(webserver), running(daemon):
            yield {part.name: part.pid or 0 for part in (postgres, server, webserver, daemon)}
            with psycopg.connect(environ["DAGSTER_PG_URL"]) as connection:
                query = "select status, count(*) from job_ticks group by status"
                ticks: dict[str, int] = dict(connection.execute(query).fetchall())
        assert set(ticks) <= {"SKIPPED", "STARTED"} and ticks["SKIPPED"], f"its sensors do not work: {ticks}"


if __name__ == "__main__":
    main()
