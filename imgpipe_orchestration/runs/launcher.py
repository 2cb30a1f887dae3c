"""The run launcher that dagster.yaml names: runs are forked, watched by their pid, and stopped by a signal.

Like Dagster's own launchers it has to import from `dagster._core`: `RunLauncher` is public, but its import path is not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from imgpipe_orchestration.runs.warm import WarmProcess

PROCESS_TAG = "dagster/forked_process"
"""Tag of a run that says where its process is, as JSON {host, pid, started}, `started` in seconds after the boot. With
Dagster's own prefix it does not clutter the UI's list of runs."""

KILLED_AFTER_SECONDS = 200.0
"""Time from an interrupt until the run is killed: longer than the longest paid call (AVATAR_IMAGE_TIMEOUT_SECONDS, 180
at most), whose answer would be lost; below `cancel_timeout_seconds`, when Dagster calls the run ended."""
_TAGGING_SECONDS = 30.0

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

    def launch_run(self, context: LaunchRunContext) -> None:
        """
        Raises:
            BackendUnavailable: no process could be forked; the run is then reported as failed to start.
        """
        run = context.dagster_run
        pid = _WARM.start(self._instance, run.run_id, context.job_code_origin)
        self._instance.add_run_tags(run.run_id, {PROCESS_TAG: _describe(pid)})
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
        # The tag is written right after the fork, or the start of a command's run, unless the process died in between.
        stats = self._instance.get_run_stats(run.run_id)
        if time.time() - (stats.launch_time or stats.start_time or 0.0) < _TAGGING_SECONDS:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "just begun")
        return CheckRunHealthResult(WorkerStatus.UNKNOWN, "nothing is known of its process")

    def dispose(self) -> None:
        _WARM.close()


def note_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run with this process; for runs without a launcher (`dagster asset materialize`, `dagster job execute`)."""
    instance.add_run_tags(run_id, {PROCESS_TAG: _describe(os.getpid())})


def health_of_process(run: dg.DagsterRun) -> CheckRunHealthResult | None:
    """Whether the run's process is alive; None where the run has no tag."""
    described = run.tags.get(PROCESS_TAG)
    if described is None:
        return None
    if json.loads(described)["host"] != socket.gethostname():
        return CheckRunHealthResult(WorkerStatus.RUNNING, "runs on another machine, whose daemon watches it")
    if _process_of(run) is None:
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone: killed, or the machine restarted")
    return CheckRunHealthResult(WorkerStatus.RUNNING)


def _describe(pid: int) -> str:
    try:
        started = _since_boot(psutil.Process(pid))
    except psutil.NoSuchProcess:
        started = 0.0
    return json.dumps({"host": socket.gethostname(), "pid": pid, "started": started})


def _process_of(run: dg.DagsterRun) -> psutil.Process | None:
    """The run's live process on this machine; its start excludes a later process with the same pid."""
    described = json.loads(run.tags.get(PROCESS_TAG, "{}"))
    if described.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(described["pid"])
        ours = abs(_since_boot(process) - described["started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
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


def _since_boot(process: psutil.Process) -> float:
    """Seconds from the machine's boot (known to the second) to the process's start. By the clock it seems to have
    started at another time as soon as the clock is set, and every run that is at work would count as dead."""
    return process.create_time() - psutil.boot_time()
