"""The run launcher of several machines (deploy/dagster.yaml): runs go into Celery queues, a `worker` takes them out.

dagster-celery's launcher with three things changed: cancelling a run reaches it, a run whose worker died is noticed,
and the run is forked from a warm process (docs/adr/0004-workers-on-many-machines.md).
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
from imgpipe_orchestration.runs.queues import QUEUE_TAG

BEAT_SECONDS = 3.0
"""How often a worker says of each of its runs that its process lives."""

SILENCE_SECONDS = 15.0
"""A run of which nothing was heard for so long is taken for dead."""

_FORGET_SECONDS = 600.0

_SILENT_BROKER_SECONDS = 5
"""How long Redis may take to answer. One that hangs, or whose machine is gone without a word, would otherwise hold the
daemon's threads that start and watch runs, and a worker's that watches one, for minutes or for ever."""

_CONFIGURATION = {
    # A worker takes a run when it can begin it: none waits behind a long one while another worker is idle.
    "worker_prefetch_multiplier": 1,
    "worker_disable_prefetch": True,
    # Acknowledged as it begins: with late acknowledgement kombu 5.7 ends the whole worker when Redis goes away.
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
    # Seconds: long enough for a Redis that is started anew, and short, for whoever watches a run sees nobody cancel it
    # meanwhile.
    "result_backend_transport_options": {"retry_policy": {"timeout": 10}},
    "broker_connection_retry_on_startup": True,
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # the run goes on without the broker
    # Else the thread of a run that begins after RabbitMQ came back asks it for more and waits for an answer that the
    # worker's main thread reads: celery 5.7 with threads then never begins the run.
    "worker_enable_prefetch_count_reduction": False,
    # Else RabbitMQ lets no worker start while it still knows one of that name: a second one on a machine, or one whose
    # machine lost its power. RabbitMQ 4 is about to refuse queues that are neither exclusive nor durable.
    "control_queue_exclusive": False,
    "control_queue_durable": True,
    "worker_hijack_root_logger": False,
    "result_expires": 86400,
}


class WorkersRunLauncher(CeleryRunLauncher):
    """Hands runs to workers on any machine, by the queue that a job's tag names."""

    def __init__(self, **config: Any) -> None:
        given = config.pop("config_source", None) or {}
        super().__init__(config_source={**_CONFIGURATION, **given}, **config)
        self._heard: dict[str, tuple[object, float]] = {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """An error of the broker passes as it is; the run is then reported as failed to start."""
        run = context.dagster_run
        queue = run.tags.get(QUEUE_TAG, self.default_queue)
        self._instance.report_engine_event(f"Waits for a worker of the queue {queue!r}.", run, cls=type(self))
        # No more than its id: where its code is says the database, so that writing into the broker gets nobody to run
        # anything else. The task has the same id, and so no tag is needed to find it again.
        self.celery.send_task(
            TASK_EXECUTE_JOB_NAME,
            args=[run.run_id],
            task_id=run.run_id,
            queue=queue,
        )

    def terminate(self, run_id: str) -> bool:
        """Its worker looks at the run's state every second, so nobody has to reach it."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        return True

    @property
    def supports_resume_run(self) -> bool:
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Run monitoring asks this of every started run; anything but RUNNING fails the run.

        Only our own clock counts, from one sign of life to the next: the clocks of two machines may differ.
        """
        # A `dagster` command's in a terminal: no worker has it. Of others the tag may be that of a run they repeat.
        if run.remote_job_origin is None and (told := health_of_process(run)) is not None:
            return told
        said = self.celery.backend.get_task_meta(run.run_id)
        if said["status"] in READY_STATES:
            # Monitoring looks at the run again before it believes this: a run that ended well says so itself first.
            return CheckRunHealthResult(
                WorkerStatus.FAILED, "its process ended without a word: killed, or out of memory"
            )
        now = time.monotonic()
        sign = (said["status"], said["result"])
        known, since = self._heard.get(run.run_id, (None, now))
        if sign != known:
            self._heard = {other: heard for other, heard in self._heard.items() if now - heard[1] < _FORGET_SECONDS}
            self._heard[run.run_id] = (sign, now)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if now - since > SILENCE_SECONDS:
            return CheckRunHealthResult(WorkerStatus.FAILED, f"no word from its worker for {now - since:.0f} s")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        said = self.celery.backend.get_task_meta(run.run_id)
        return f"Its worker said last: {said['status']} {said['result']}"
