"""The run launcher that dagster.yaml names: runs are forked, watched by their pid, and stopped by a signal.

Like Dagster's own launchers it has to import from `dagster._core`: `RunLauncher` is public, but its import path is not.
No other module does; `celery_launcher` has what it needs from here.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Self

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.telemetry.processes import PROCESS_TAG, describe_process, since_boot

__all__ = ["CheckRunHealthResult", "ForkedRunLauncher", "LaunchRunContext", "WarmProcess", "WorkerStatus"]

KILLED_AFTER_SECONDS = 200.0
"""Time from an interrupt until the run is killed: longer than the longest paid call (an avatar's picture, 180 s), whose
answer would be lost; below `cancel_timeout_seconds`, when Dagster calls the run ended."""
_TAGGING_SECONDS = 30.0

START_SECONDS = 150.0
"""Within which a new forkserver must answer. Its imports take three seconds, but minutes on an overloaded machine, and
a replacement would begin them again."""
ANSWER_SECONDS = 60.0
"""Within which it must answer from then on, or it is replaced."""

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES"}
"""Of the forkserver: its import of numpy starts no threads, and macOS does not end a forked process that uses its
frameworks, as reading the system's proxy does."""


class WarmProcess:
    """A process of `forkserver`, started when it is first needed and replaced if it died. Thread-safe."""

    def __init__(self, *, ends_runs: bool = False) -> None:
        """
        Args:
            ends_runs: interrupt its runs when it ends, and so when this process ends; otherwise they go on.
        """
        self._options = ["--ends-runs"] if ends_runs else []
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket
        self._answers: BinaryIO

    def preload(self) -> None:
        """Start it now instead of when the first run waits for it."""
        with self._lock:
            self._open()

    def start(self, instance: dg.DagsterInstance, run_id: str, origin: Any) -> int:
        """Fork a process for a run that is in `instance` and whose code is at `origin`; returns its pid.

        Raises:
            BackendUnavailable: no process could be forked.
        """
        if origin is None:
            raise BackendUnavailable(f"run {run_id} does not say where its code is")
        words = ExecuteRunArgs(origin, run_id, instance.get_ref()).get_command_args()
        # The words before `api` only say how to call `dagster`.
        command = [*_other_python(origin.executable_path), *words[words.index("api") :]]
        line = json.dumps(command).encode() + b"\n"
        with self._lock:
            for _ in range(2):  # replaces a forkserver that died since the last run, once
                try:
                    pid = self._ask(line)
                except OSError as error:
                    self._close()
                    slow = isinstance(error, TimeoutError)
                    continue
                if pid < 0:
                    raise BackendUnavailable(f"No process can be started for the run: {os.strerror(-pid)}.")
                return pid
        why = "does not answer: the machine is overloaded" if slow else "ends as soon as it starts; see the log above"
        raise BackendUnavailable(f"The process that forks the runs {why}.")

    def close(self) -> None:
        with self._lock:
            self._close()

    def _open(self) -> None:
        if self._process is not None:
            return
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(START_SECONDS)
        self._answers = self._socket.makefile("rb")
        with theirs:
            words = ["-m", "imgpipe_orchestration.dagster_side.forkserver", str(theirs.fileno()), *self._options]
            self._process = subprocess.Popen(
                [sys.executable, *words],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **_ENVIRONMENT},
            )

    def _ask(self, line: bytes) -> int:
        """The pid of a new process, or a negative errno.

        Raises:
            OSError: the forkserver is gone, or does not answer.
        """
        self._open()
        self._socket.sendall(line)
        answer = self._answers.readline()
        if not answer:
            raise ConnectionResetError("the forkserver ended")
        self._socket.settimeout(ANSWER_SECONDS)
        return int(answer)

    def _close(self) -> None:
        if self._process is None:
            return
        self._answers.close()
        self._socket.close()  # which ends the process
        try:
            self._process.wait(1)
        except subprocess.TimeoutExpired:  # it is still importing and does not read its socket yet
            self._process.kill()
            self._process.wait()
        self._process = None


def _other_python(executable: str) -> list[str]:
    """How to call `dagster` in another code location's interpreter. Empty for our own, and where this machine lacks
    that interpreter: a worker may have the same code elsewhere."""
    ours, theirs = [(path.parent.resolve(), path.resolve()) for path in (Path(sys.executable), Path(executable))]
    return [executable, "-m", "dagster"] if theirs != ours and Path(executable).exists() else []


_WARM = WarmProcess()
"""One for the process: the daemon's threads, when they launch the first runs at once, each make a launcher."""


class ForkedRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Forks runs from a process that has loaded the definitions. Starting or stopping a run needs no code server."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster's base class has no annotation there

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data)

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Keep connections to the database open in the daemon, which loads its launcher for the first run. Dagster's
        webserver does the same. Otherwise dagster-postgres opens one for every statement: half of an idle stack's CPU.

        The event log is left out. It is used so rarely that after a restart of PostgreSQL a run that is being launched
        would be the first to meet a dead connection, and would fail.
        """
        super().register_instance(instance)
        storages: list[Any] = [instance.run_storage, instance.schedule_storage]
        for storage in storages:
            storage.optimize_for_webserver(statement_timeout=60_000, pool_recycle=600, max_overflow=20)

    def launch_run(self, context: LaunchRunContext) -> None:
        """
        Raises:
            BackendUnavailable: no process could be forked; the run is then reported as failed to start.
        """
        run = context.dagster_run
        pid = _WARM.start(self._instance, run.run_id, context.job_code_origin)
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: describe_process(pid)})
        self._instance.report_engine_event(f"Forked process {pid} for the run.", run, cls=type(self))

    def terminate(self, run_id: str) -> bool:
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        process = _process_of(run)
        if process is None:
            return False
        try:
            process.send_signal(signal.SIGINT)
        except psutil.NoSuchProcess:
            return False
        # This process lives longer: it is the webserver or the daemon.
        threading.Thread(target=_end, args=[process], name=f"end of run {run_id}", daemon=True).start()
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Run monitoring calls this for every started run; anything but RUNNING fails the run."""
        if (health := health_of_process(run)) is not None:
            return health
        # The tag is written right after the fork, unless the process died in between.
        stats = self._instance.get_run_stats(run.run_id)
        if time.time() - (stats.launch_time or stats.start_time or 0.0) < _TAGGING_SECONDS:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "just begun")
        return CheckRunHealthResult(WorkerStatus.UNKNOWN, "nothing is known of its process")

    def dispose(self) -> None:
        _WARM.close()


def health_of_process(run: dg.DagsterRun) -> CheckRunHealthResult | None:
    """Whether the run's process is alive; None where a launcher's run has no tag."""
    described = run.tags.get(PROCESS_TAG)
    if described is None and run.remote_job_origin is None:
        return CheckRunHealthResult(WorkerStatus.RUNNING, "runs in the process of a command, which nobody watches")
    if described is None:
        return None
    if json.loads(described)["host"] != socket.gethostname():
        return CheckRunHealthResult(WorkerStatus.RUNNING, "runs on another machine, whose daemon watches it")
    if _process_of(run) is None:
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone: killed, or the machine restarted")
    return CheckRunHealthResult(WorkerStatus.RUNNING)


def _process_of(run: dg.DagsterRun) -> psutil.Process | None:
    """The run's live process on this machine; its start excludes a later process with the same pid."""
    described = json.loads(run.tags.get(PROCESS_TAG, "{}"))
    if described.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(described["pid"])
        ours = abs(since_boot(process) - described["started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if ours else None


def _end(interrupted: psutil.Process) -> None:
    """Kill a process that has swallowed the interrupt: it would go on as a run that everybody takes for cancelled, and
    keep its items."""
    try:
        interrupted.wait(KILLED_AFTER_SECONDS)
    except psutil.TimeoutExpired:
        with suppress(psutil.NoSuchProcess):
            interrupted.kill()
