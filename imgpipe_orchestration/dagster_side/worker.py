"""`python -m imgpipe_orchestration.dagster_side.worker --queues cpu`: takes runs out of the queues and forks them.

There are one or more on each machine, with the same DAGSTER_HOME and settings as the daemon. A worker has a thread for
each run that it may have at once. The thread reports to the broker's result store that the run is alive, and interrupts
the run when somebody has cancelled it. The run itself is a forked process that ends with the run, so nothing can leak
into later runs. When the worker dies its runs are interrupted, and Dagster's monitoring notices the missing reports.
"""

import math
import signal
import socket
import time
from contextlib import suppress
from typing import Any

import click
import dagster as dg
import psutil
from celery import Task
from celery.signals import setup_logging, worker_ready, worker_shutting_down
from celery.states import STARTED, SUCCESS
from dagster_celery.config import TASK_EXECUTE_JOB_NAME

from imgpipe_orchestration.dagster_side.celery_launcher import BEAT_SECONDS, WorkersRunLauncher
from imgpipe_orchestration.dagster_side.launcher import KILLED_AFTER_SECONDS, WarmProcess
from imgpipe_orchestration.dagster_side.run_tags import QUEUES
from imgpipe_orchestration.errors import BackendUnavailable, SettingsError
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.telemetry import logs

log = logs.logger(__name__)

LOOK_SECONDS = 1.0
"""How often a run's state is checked, and so how long a cancelled run may go on."""
ENDED_SECONDS = 10.0
"""Time for the process to end once its run is finished; then it is interrupted (monitoring may have failed the run)."""
GRACE_SECONDS = 20.0
"""Time for runs to end by themselves when the worker is told to stop; then they are interrupted and give items back."""


class RunWatcher:
    """Starts runs and watches them to their ends, each in the thread that calls `keep`."""

    def __init__(self, instance: dg.DagsterInstance, warm: WarmProcess) -> None:
        self._instance = instance
        self._warm = warm
        self._stopping_since: float | None = None

    def stop_soon(self, **_: object) -> None:
        self._stopping_since = time.monotonic()

    def keep(self, task: Task, run_id: str) -> None:
        """Start the run and watch it to its end; does nothing for one that is not waiting to be started, because it was
        delivered twice or given up meanwhile.

        Raises:
            BackendUnavailable: it could not be started, or its process ended without reporting to Dagster.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run)
            return
        if run is None or run.status not in (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED):
            return
        try:
            pid = self._warm.start(self._instance, run_id, run.job_code_origin)
            where = f"Forked process {pid} on {socket.gethostname()} for the run."
            self._instance.report_engine_event(where, run, cls=WorkersRunLauncher)
            self._watch(task, run_id, pid)
        finally:
            self._report(task, run_id, SUCCESS, {"host": socket.gethostname()})
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            raise BackendUnavailable(f"Process {pid} of run {run_id} ended without an error message.")

    def _watch(self, task: Task, run_id: str, pid: int) -> None:
        """Watch the process until it has ended, even while broker or database are away."""
        beats, next_beat, wanted_until, interrupted = 0, 0.0, math.inf, None
        try:
            process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            return
        while True:
            now = time.monotonic()
            if now >= next_beat:
                beats, next_beat = beats + 1, now + BEAT_SECONDS
                self._report(task, run_id, STARTED, {"host": socket.gethostname(), "pid": pid, "beats": beats})
            wanted_until = min(wanted_until, now + self._grace(run_id))
            with suppress(psutil.NoSuchProcess):
                if interrupted is None and now >= wanted_until:
                    interrupted = now
                    process.send_signal(signal.SIGINT)
                elif interrupted is not None and now - interrupted > KILLED_AFTER_SECONDS:
                    process.kill()
            try:
                process.wait(LOOK_SECONDS)
                return
            except psutil.TimeoutExpired:
                continue

    def _report(self, task: Task, run_id: str, state: str, sign: dict[str, Any]) -> None:
        """Report that the run is alive (STARTED), or no longer watched (SUCCESS)."""
        try:
            task.update_state(task_id=run_id, state=state, meta=sign)
        except Exception as error:  # each broker has errors of its own
            log.warning("report on a run not sent", extra={"run": run_id, "state": state}, exc_info=error)

    def _grace(self, run_id: str) -> float:
        """Seconds that the run may go on: 0 once it is cancelled, few when it is finished or the worker is stopping."""
        left = math.inf
        if self._stopping_since is not None:
            left = self._stopping_since + GRACE_SECONDS - time.monotonic()
        try:
            run = self._instance.get_run_by_id(run_id)
        except Exception as error:  # the run may go on while the database is away
            log.warning("state of the run not known", extra={"run": run_id}, exc_info=error)
            return left
        if run is None or run.status is dg.DagsterRunStatus.CANCELING:
            return 0.0
        return min(left, ENDED_SECONDS) if run.is_finished else left


@click.command()
@click.option("--queues", default=",".join(QUEUES), show_default=True, help="Which queues to take runs from.")
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    envvar="WORKER_CONCURRENCY",
    help="Runs at the same time.",
)
def main(queues: str, concurrency: int) -> None:
    """Take runs from the queues of Dagster's run launcher, until told to stop."""
    settings = load()
    logs.configure(**settings.logging())
    warm = WarmProcess(ends_runs=True)
    warm.preload()
    with dg.DagsterInstance.get() as instance:
        launcher = instance.run_launcher
        if not isinstance(launcher, WorkersRunLauncher):
            raise SettingsError(
                f"dagster.yaml in DAGSTER_HOME names {type(launcher).__name__} as run launcher: no queues"
            )
        if "worker_disable_prefetch" not in (launcher.config_source or {}):
            raise SettingsError("dagster.yaml in DAGSTER_HOME has no config_source: take it from deploy/dagster.yaml")
        # Create the log manager now: with missing settings the worker does not start, instead of failing every run.
        kept_by = type(instance.compute_log_manager).__name__
        log.info("worker starting", extra={"queues": queues, "prints_kept_by": kept_by})
        watcher = RunWatcher(instance, warm)
        setup_logging.connect(lambda **_: None, weak=False)  # which keeps Celery from configuring logging itself
        worker_shutting_down.connect(watcher.stop_soon)
        worker_ready.connect(lambda **_: log.info("worker ready: it takes runs"), weak=False)
        app = launcher.celery

        def execute_job(task: Task, run_id: str) -> None:
            watcher.keep(task, run_id)

        # Celery must not store a result: while Redis is away that fails outside of the task. `keep` reports the end.
        app.task(execute_job, bind=True, name=TASK_EXECUTE_JOB_NAME, ignore_result=True, throws=(BackendUnavailable,))
        name = f"{queues.replace(',', '-')}@%h"
        words = ["worker", "--pool", "threads", "--concurrency", str(concurrency), "--queues", queues]
        app.worker_main([*words, "--hostname", name, "--without-gossip", "--without-mingle"])
    warm.close()


if __name__ == "__main__":
    try:
        main()
    except SettingsError as error:
        raise SystemExit(f"imgpipe: {error.public}") from None
