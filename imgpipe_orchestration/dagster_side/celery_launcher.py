"""The run launcher for several machines (deploy/dagster.yaml): it puts runs into Celery queues for workers.

dagster-celery's launcher with three changes: a run can be cancelled, a run whose worker died is noticed, and the run is
forked from a warm process (docs/adr/0004-workers-on-many-machines.md).
"""

import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
from celery.states import READY_STATES
from dagster_celery.config import TASK_EXECUTE_JOB_NAME
from dagster_celery.launcher import CeleryRunLauncher

from imgpipe_orchestration.dagster_side.launcher import (
    CheckRunHealthResult,
    LaunchRunContext,
    WorkerStatus,
    health_of_process,
)
from imgpipe_orchestration.dagster_side.run_tags import QUEUE_TAG

BEAT_SECONDS = 3.0
"""How often a worker reports for each of its runs that the process is alive."""

SILENCE_SECONDS = 15.0
"""A run without a report for this long is considered dead."""

_FORGET_SECONDS = 600.0


class WorkersRunLauncher(CeleryRunLauncher):
    """Sends runs to workers on any machine, through the queue that a job's tag names."""

    def __init__(self, **config: Any) -> None:
        given = config.pop("config_source", None) or {}
        super().__init__(config_source={**over_tls(config.get("broker"), config.get("backend")), **given}, **config)
        self._heard: dict[str, tuple[object, float]] = {}

    def launch_run(self, context: LaunchRunContext) -> None:
        """Queue the run. An error of the broker is raised as it is; the run is then reported as failed to start."""
        run = context.dagster_run
        queue = run.tags.get(QUEUE_TAG, self.default_queue)
        self._instance.report_engine_event(f"Waits for a worker of the queue {queue!r}.", run, cls=type(self))
        # Only the run's id: the worker reads from the database where the code is, so that write access to the broker is
        # not enough to run other code. The task has the same id, so that no tag is needed to find it again.
        self.celery.send_task(TASK_EXECUTE_JOB_NAME, args=[run.run_id], task_id=run.run_id, queue=queue)

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
                WorkerStatus.FAILED, "its process ended without an error message: killed, or out of memory"
            )
        now = time.monotonic()
        sign = (report["status"], report["result"])
        known, since = self._heard.get(run.run_id, (None, now))
        if sign != known:
            self._heard = {other: heard for other, heard in self._heard.items() if now - heard[1] < _FORGET_SECONDS}
            self._heard[run.run_id] = (sign, now)
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        if now - since > SILENCE_SECONDS:
            return CheckRunHealthResult(WorkerStatus.FAILED, f"no report from its worker for {now - since:.0f} s")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> str | None:
        report = self.celery.backend.get_task_meta(run.run_id)
        return f"Its worker last reported: {report['status']} {report['result']}"


def over_tls(broker: str | None, backend: str | None = None) -> dict[str, Any]:
    """The settings of a Celery app that has certificates verified.

    By itself kombu takes any for `rediss://`, and for `amqps://` one of a trusted authority for any host;
    `ssl_cert_reqs` in a URL of Redis goes before what is said here.

    Args:
        broker: its URL; several are separated by semicolons.
        backend: URL of the store of the workers' reports.
    """
    verified: dict[str, Any] = {}
    match urlsplit(broker or "").scheme:
        case "rediss":
            verified["broker_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
        case "amqps":
            host = urlsplit((broker or "").partition(";")[0]).hostname
            verified["broker_use_ssl"] = {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": host}
    if urlsplit(backend or "").scheme == "rediss":
        verified["redis_backend_use_ssl"] = {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    return verified
