"""The run launcher for several machines (deploy/dagster.yaml): it puts runs into Celery queues for workers.

dagster-celery's launcher with three changes: a run can be cancelled, a run whose worker died is noticed, and the run is
forked from a warm process (docs/adr/0004-workers-on-many-machines.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

import dagster as dg
from celery.states import READY_STATES
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._serdes import ConfigurableClassData
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from dagster_celery.launcher import CeleryRunLauncher

from imgpipe_orchestration.runs.launcher import health_of_process
from imgpipe_orchestration.runs.worker_queues import QUEUE_TAG

BEAT_SECONDS = 3.0
"""How often a worker reports for each of its runs that the process is alive."""

SILENCE_SECONDS = 15.0
"""A run without a report for so long is considered dead."""

_FORGET_SECONDS = 600.0

_SILENT_BROKER_SECONDS = 5
"""How long Redis may take to answer. One that hangs, or whose machine disappeared, would otherwise block the threads of
daemon and workers that start and watch runs, for minutes or for ever."""

_CONFIGURATION = {
    # A worker takes a run only when it can begin it, so that no run waits behind a long one while a worker is idle.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # Early acknowledgement: with late acknowledgement kombu 5.7 ends the whole worker when Redis goes away.
    "task_acks_late": False,
    "broker_transport_options": {
        "max_retries": 3,
        "interval_start": 0,
        "interval_step": 0.2,
        "socket_connect_timeout": 5,
        "socket_timeout": _SILENT_BROKER_SECONDS,
        "socket_keepalive": True,
    },
    "redis_socket_connect_timeout": 5,
    "redis_socket_timeout": _SILENT_BROKER_SECONDS,
    # Seconds: long enough for a restart of Redis, but short, because meanwhile a watched run cannot be cancelled.
    "result_backend_transport_options": {"retry_policy": {"timeout": 10}},
    "broker_connection_retry_on_startup": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # the run goes on without the broker
    # Otherwise, with celery 5.7 and threads, a run after a restart of RabbitMQ never begins: its thread waits for an
    # answer that the worker's main thread reads.
    "worker_enable_prefetch_count_reduction": False,
    # Otherwise RabbitMQ lets no worker start while it knows one of that name: a second one on a machine, or one whose
    # machine lost power. Durable because RabbitMQ 4 is going to refuse queues that are neither exclusive nor durable.
    "control_queue_exclusive": False,
    "control_queue_durable": True,
    "worker_hijack_root_logger": False,
    "result_expires": 86400,
}


class WorkersRunLauncher(CeleryRunLauncher):
    """Sends runs to workers on any machine, through the queue that a job's tag names."""

    def __init__(self, **config: Any) -> None:
        given = config.pop("config_source", None) or {}
        super().__init__(config_source={**_CONFIGURATION, **given}, **config)
        self._heard: dict[str, tuple[object, float]] = {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Queue the run. An error of the broker is raised as it is; the run is then reported as failed to start."""
        run = context.dagster_run
        queue = run.tags.get(QUEUE_TAG, self.default_queue)
        self._instance.report_engine_event(f"Waits for a worker of the queue {queue!r}.", run, cls=type(self))
        # Only the run's id: the worker reads from the database where the code is, so that write access to the broker is
        # not enough to run other code. The task has the same id, so that no tag is needed to find it again.
        self.celery.send_task(
            TASK_EXECUTE_JOB_NAME,
            args=[run.run_id],
            task_id=run.run_id,
            queue=queue,
        )

    def terminate(self, run_id: str) -> bool:
        """Mark the run as cancelled; its worker checks the state every second."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return True

    @property
    def supports_resume_run(self) -> bool:
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Run monitoring calls this for every started run; anything but RUNNING fails the run.

        Only our own clock counts, from one report to the next, because the clocks of two machines may differ.
        """
        # A run of a `dagster` command in a terminal has no worker. On other runs the tag may be copied from the run
        # that they re-execute.
        if run.remote_job_origin is None and (health := health_of_process(run)) is not None:
            return health
        report = self.celery.backend.get_task_meta(run.run_id)
        if report["status"] in READY_STATES:
            # Monitoring reads the run again before it acts on this; a run that ended well is finished by then.
            return CheckRunHealthResult(
                WorkerStatus.FAILED, "its process ended without a word: killed, or out of memory"
            )
        now = time.monotonic()
        sign = (report["status"], report["result"])
        known, since = self._heard.get(run.run_id, (None, now))
        if sign != known:
            self._heard = {other: heard for other, heard in self._heard.items() if now - heard[1] < _FORGET_SECONDS}
            self._heard[run.run_id] = (sign, now)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if now - since > SILENCE_SECONDS:
            return CheckRunHealthResult(WorkerStatus.FAILED, f"no word from its worker for {now - since:.0f} s")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        report = self.celery.backend.get_task_meta(run.run_id)
        return f"Its worker said last: {report['status']} {report['result']}"
