"""What every pipeline's sensors share: how many runs at a time, and claims that come back when a run ends badly."""

import time

import dagster as dg

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.jobs import PARTITION
from imgpipe_orchestration.resources import BackendsResource

ALERTS_A_TICK = 5
"""So many that a webhook which is slow to answer each does not outlast the tick's minute."""
ALERT_SECONDS = 24 * 3600.0
"""Until a failure is old news: what a webhook refused as long as that keeps later failures waiting no more."""
AHEAD = {"dagster/priority": "1"}
"""Tag of the runs that sensors and schedules ask for: ahead of a backfill's. People wait for what is due, nobody for a
backfill. Behind the sensors', nightly runs would never begin where more pipelines are busy than there are places."""
ROOT_RUN = "dagster/root_run_id"
"""The tag under which Dagster notes which run a re-execution repeats."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""Not "not started", which a run is for milliseconds, or for ever where who made it was killed before he queued it."""


def owner_of(run: dg.DagsterRun) -> str:
    """Who holds a run's claims: its root run, so that a re-execution finds what the first try had taken."""
    return run.root_run_id or run.run_id


def unfinished_run(
    instance: dg.DagsterInstance, job_name: str, tags: dict[str, str] | None = None, *, at_most: int = 1
) -> str | None:
    """The id of a run of `job_name` when `at_most` of them have not ended, else None: a sensor asks for no more."""
    wanted = dg.RunsFilter(job_name=job_name, statuses=UNFINISHED, tags=tags or {})
    found = instance.get_run_records(filters=wanted, limit=at_most)
    return found[0].dagster_run.run_id if len(found) == at_most else None


# These sensors return nothing: a reason would end the tick as skipped, and leave the next run to the next tick.
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
    # A run that raised an error says so for the step. One that run monitoring found dead does not: what it was working
    # on may have killed it.
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
    # No run failure sensor: those pass over a run once they were asked about it, whether they raised or not.
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
