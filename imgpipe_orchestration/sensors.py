"""What every pipeline's sensors share: how many runs at a time, and claims that come back when a run ends badly."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.jobs import PARTITION
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

ALERTS_A_TICK = 5
"""A tick has a minute, and each alert may take `alerts.TIMEOUT_SECONDS`."""
ALERT_SECONDS = 24 * 3600.0
"""An alert that the webhook has refused for so long is dropped, so that it does not hold up later ones for ever."""
AHEAD = {"dagster/priority": "1"}
"""Tag of the runs that sensors and schedules ask for: they start before those of a backfill, for which nobody waits.
Nightly runs have the sensors' priority: with a lower one they would never start while every place for a run is busy."""
ROOT_RUN = "dagster/root_run_id"
"""The tag under which Dagster notes which run a re-execution repeats."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""NOT_STARTED is not among them: a run has it for milliseconds, or for ever where its creator was killed before it
queued the run."""


def owner_of(run: dg.DagsterRun) -> str:
    """The owner of a run's claims: the id of its root run, so that a re-execution has the claims of the first run."""
    return run.root_run_id or run.run_id


def unfinished_run(
    instance: dg.DagsterInstance, job_name: str, tags: dict[str, str] | None = None, *, at_most: int = 1
) -> str | None:
    """The id of one of the unfinished runs of `job_name` when there are `at_most` of them or more, else None."""
    wanted = dg.RunsFilter(job_name=job_name, statuses=UNFINISHED, tags=tags or {})
    found = instance.get_run_records(filters=wanted, limit=at_most)
    return found[0].dagster_run.run_id if len(found) == at_most else None


def run_if_due(
    context: dg.SensorEvaluationContext,
    backends: BackendsResource,
    job: str,
    due: "Callable[[Services], bool]",
    cursor: str | None = None,
) -> dg.SensorResult:
    """A tick that asks for a run of `job` when something is due and fewer than RUNS_PER_PIPELINE are unfinished.

    Args:
        cursor: the sensor's new cursor when it asks for a run.
    """
    if not due(backends.services):
        return dg.SensorResult(skip_reason="nothing is due")
    if run_id := unfinished_run(context.instance, job, at_most=backends.services.settings.runs_per_pipeline):
        return dg.SensorResult(skip_reason=f"run {run_id} has not ended")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags=AHEAD)], cursor=cursor)


# The two sensors of run statuses return nothing: after a SkipReason Dagster leaves the next run to the next tick.
def _give_back(
    context: dg.RunStatusSensorContext, backends: BackendsResource, *, died: bool = False, cancelled: bool = False
) -> None:
    from imgpipe_orchestration.storage import job_instances

    owner = owner_of(context.dagster_run)
    again = dg.RunsFilter(tags={ROOT_RUN: owner}, statuses=[dg.DagsterRunStatus.STARTED])
    if taken_over := context.instance.get_run_records(filters=again, limit=1):
        context.log.info(f"run {taken_over[0].dagster_run.run_id} goes on with what {owner} held")
        return
    count = backends.services.claims.release(owner, died=died)
    jobs = job_instances.interrupted(backends.services.engine, owner, again=not cancelled)
    context.log.info(f"gave back {count} claims and {jobs} job instances of run {context.dagster_run.run_id}")


@dg.run_failure_sensor(
    description="Gives back what a failed run still held, so that the next run takes it up at once.",
    monitor_all_code_locations=True,  # else not those of `dagster asset materialize`, which know of no location
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=10,
)
def claims_of_failed_runs(context: dg.RunFailureSensorContext, sensor_backends: BackendsResource) -> None:
    # A run that raised has a failed step. One that run monitoring found dead has none: an item may have killed it.
    _give_back(context, sensor_backends, died=not context.get_step_failure_events())


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    description="Gives back what a cancelled run still held.",
    monitor_all_code_locations=True,  # as above
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def claims_of_cancelled_runs(context: dg.RunStatusSensorContext, sensor_backends: BackendsResource) -> None:
    _give_back(context, sensor_backends, cancelled=True)


@dg.sensor(
    description="Tells ALERT_WEBHOOK_URL of every failed run: job, reason, link. What it does not take is told later.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
def alert_on_failed_runs(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SkipReason:
    # Not a run failure sensor: Dagster asks those only once about each run, also when they raise.
    from imgpipe_orchestration import alerts

    settings = sensor_backends.services.settings
    if not settings.alert_webhook_url:
        return dg.SkipReason("ALERT_WEBHOOK_URL is not set")
    newest = context.instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
    last = newest[0].storage_id if newest else 0
    cursor = context.cursor or ""
    if not cursor.isdecimal() or int(cursor) > last:  # the first tick, or somebody set it, or the newest was deleted
        context.update_cursor(str(last))
        return dg.SkipReason("tells of runs that fail from now on")
    failed = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=int(cursor))
    told = 0
    for record in context.instance.fetch_run_status_changes(failed, limit=ALERTS_A_TICK, ascending=True).records:
        entry = record.event_log_entry
        message = _about(context.instance, entry, settings.dagster_url)
        try:
            if message and record.timestamp > time.time() - ALERT_SECONDS:
                alerts.send(settings.alert_webhook_url, message, f"run-failed-{entry.run_id}")
                told += 1
        except ImgpipeError as error:
            if not told:
                raise  # the cursor stays, and the tick shows why
            return dg.SkipReason(f"told of {told} failed runs; the next waits: {error}")
        context.update_cursor(str(record.storage_id))
    return dg.SkipReason(f"told of {told} failed runs")


def _about(instance: dg.DagsterInstance, failure: dg.EventLogEntry, dagster_url: str) -> dict[str, str] | None:
    """The message about a failed run; None when the run was deleted since."""
    from imgpipe_orchestration import alerts

    run = instance.get_run_by_id(failure.run_id)
    if run is None:
        return None
    reasons = []
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        error = entry.dagster_event.step_failure_data.error if entry.dagster_event else None
        while error is not None and error.cause is not None:  # the outermost only says which step it was
            error = error.cause
        reasons += [error.message] if error is not None else []
    said = failure.dagster_event.message if failure.dagster_event else None
    return alerts.run_failed(
        job=run.job_name,
        run_id=run.run_id,
        link=f"{dagster_url}/runs/{run.run_id}",
        reason=(reasons[0] if reasons else said or "The run died without a word.").strip(),
        partition=run.tags.get(PARTITION, ""),
    )
