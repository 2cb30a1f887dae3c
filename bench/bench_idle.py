"""What the whole stack costs while there is nothing to do: CPU seconds an hour, and memory.

Beside it runs Dagster by itself (webserver, daemon, code server and PostgreSQL, as its documentation deploys them) with
as many sensors, which return at once. Both settle, then the CPU time of all their processes is added up over the same
while. Processes that end in between would be missed; an idle stack starts none.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg
from running import bar, running_stack, wait_for

from imgpipe_orchestration.devstack import stackfile
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port, listening
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.settings import Settings

LIMIT = 0.8
"""Of Dagster by itself, though that has no queues to look at, no gateway, no other stores and no supervisor."""

_DAGSTER_YAML = """
storage: { postgres: { postgres_url: { env: DAGSTER_PG_URL } } }
telemetry: { enabled: false }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settle", type=float, default=45, help="seconds before the measurement")
    parser.add_argument("--seconds", type=float, default=120, help="seconds measured")
    arguments = parser.parse_args()
    ours = {name.upper() for name in Settings.model_fields}
    began = time.monotonic()
    # Without any setting of ours: a stack as everybody gets it.
    with running_stack({name: value for name, value in os.environ.items() if name not in ours}) as stack:
        print(f"started in {time.monotonic() - began:.1f} s")
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
    bar("idle_cpu_over_dagster_by_itself", totals[0] / totals[1], LIMIT)


def told(stack: str, before: dict[int, Process], after: dict[int, Process], seconds: float) -> float:
    """Print what each part took; returns the CPU seconds an hour of all."""
    hourly: defaultdict[str, float] = defaultdict(float)
    memory: defaultdict[str, float] = defaultdict(float)
    for pid, (part, cpu, unique) in after.items():
        hourly[part] += (cpu - before[pid][1] if pid in before else cpu) * 3600 / seconds
        memory[part] += unique / 2**20
    for part in sorted(hourly, key=hourly.__getitem__, reverse=True):
        print(f"  {part:22} {hourly[part]:7.1f} CPU s an hour {memory[part]:7.0f} MB of its own")
    total = sum(hourly.values())
    print(f"{stack:24} {total:7.1f} CPU s an hour {sum(memory.values()):7.0f} MB of its own")
    return total


Process = tuple[str, float, int]
"""The part it belongs to, its CPU seconds so far, its unique memory in bytes."""


def snapshot(parts: dict[str, int]) -> dict[int, Process]:
    """The processes of a stack by their pid.

    Args:
        parts: the pid of each part's first process, whose children belong to it unless they are parts themselves.
    """
    found = {}
    for name, pid in parts.items():
        process = psutil.Process(pid)
        family = [process] if name == "supervisor" else [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = member.cpu_times()
                found[member.pid] = (name, times.user + times.system, member.memory_full_info().uss)
    return found


@contextmanager
def bare_dagster() -> Iterator[dict[str, int]]:
    """Dagster by itself; gives the pid of each part."""
    from imgpipe_orchestration.definitions import defs

    intervals = ",".join(str(sensor.minimum_interval_seconds or 30) for sensor in defs.sensors or ())
    folder = Path(tempfile.mkdtemp(prefix="imgpipe-bench-")).resolve()
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(_DAGSTER_YAML)
    ports = {name: free_port() for name in ("postgres", "code server", "webserver")}
    workspace = folder / "workspace.yaml"
    workspace.write_text(f"load_from: [grpc_server: {{host: {LOOPBACK}, port: {ports['code server']}}}]")
    at = {name: ["-h", LOOPBACK, "-p", str(port)] for name, port in ports.items()}
    project = str(Path(__file__).with_name("bare_dagster.py"))
    commands = {
        "code server": ["dagster", "api", "grpc", "-f", project, *at["code server"]],
        "webserver": ["dagster_webserver", "-w", str(workspace), *at["webserver"]],
        "daemon": ["dagster._daemon", "run", "-w", str(workspace)],
    }
    with contextlib.ExitStack() as ended:
        ended.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = ended.enter_context(Postgres(folder / "postgres", ports["postgres"], databases=["dagster"]))
        environ = os.environ | {
            "DAGSTER_HOME": str(folder / "home"),
            "DAGSTER_PG_URL": postgres.database_url("dagster").replace("postgresql+psycopg:", "postgresql:"),
            "SENSOR_SECONDS": intervals,
        }
        log = ended.enter_context((folder / "log").open("wb"))
        # Dagster's code server ends itself by SIGINT, which a background job ignores, and its children with it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        pids = {"postgres": postgres.pid or 0}
        for name, command in commands.items():
            process = subprocess.Popen(
                [sys.executable, "-m", *command], env=environ, stdout=log, stderr=log, start_new_session=True
            )
            ended.callback(process.wait, 60)
            ended.callback(process.terminate)
            pids[name] = process.pid
            if name in ports:
                wait_for(lambda name=name: listening(ports[name]), f"Dagster's {name}", 60)
        yield pids
        with psycopg.connect(environ["DAGSTER_PG_URL"]) as connection:
            ticks = dict(connection.execute("select status, count(*) from job_ticks group by status").fetchall())
        assert set(ticks) <= {"SKIPPED", "STARTED"} and ticks["SKIPPED"], f"its sensors do not work: {ticks}"


if __name__ == "__main__":
    main()
