"""The run launcher that dagster.yaml names: runs are forked, watched by their pid, and stopped by a signal.

A custom launcher has to import from `dagster._core`, as every launcher that Dagster ships does: `RunLauncher` is
public, its import path is not.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
import psutil
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from imgpipe_orchestration.runs.forkserver import PRELOAD_VARIABLE
from imgpipe_orchestration.runs.warm import WarmProcess

PROCESS_TAG = "dagster/forked_process"
"""Tag of a run: where its process is, as JSON {host, pid, started}. The UI's list of runs leaves out Dagster's own
prefix, other tags fill its rows."""

_TAGGING_SECONDS = 30.0


class ForkedRunLauncher(RunLauncher[dg.DagsterInstance], ConfigurableClass):
    """Forks runs from a process that has the definitions loaded. Needs no code server to start or to stop a run."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._warm = WarmProcess()
        # Popped, not read: the forkserver and the runs inherit the environment and must not start one each.
        if os.environ.pop(PRELOAD_VARIABLE, ""):
            self._warm.preload()
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
        pid = self._warm.start(self._instance, run.run_id, context.job_code_origin)
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
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Run monitoring asks this of every started run; anything but RUNNING fails the run."""
        if (told := health_of_process(run)) is not None:
            return told
        # The tag follows the fork, or the beginning of a command's run, at once, unless one died between the two.
        stats = self._instance.get_run_stats(run.run_id)
        if time.time() - (stats.launch_time or stats.start_time or 0.0) < _TAGGING_SECONDS:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "just begun")
        return CheckRunHealthResult(WorkerStatus.UNKNOWN, "nothing is known of its process")

    def dispose(self) -> None:
        self._warm.close()


def note_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Where the process, this one, of a run is that no launcher began, but `dagster asset materialize` or
    `dagster job execute`."""
    instance.add_run_tags(run_id, {PROCESS_TAG: _describe(os.getpid())})


def health_of_process(run: dg.DagsterRun) -> CheckRunHealthResult | None:
    """Whether the run's process lives; None where no tag says which it is."""
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
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        started = 0.0
    return json.dumps({"host": socket.gethostname(), "pid": pid, "started": started})


def _process_of(run: dg.DagsterRun) -> psutil.Process | None:
    """The run's live process on this machine; its start time tells it from a later owner of the pid."""
    described = json.loads(run.tags.get(PROCESS_TAG, "{}"))
    if described.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(described["pid"])
        ours = abs(process.create_time() - described["started"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if ours else None
