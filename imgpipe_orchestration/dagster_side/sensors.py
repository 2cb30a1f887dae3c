"""What every pipeline's sensors and schedules share: how many runs at a time, and claims that come back when a run
ends badly."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dagster as dg
import tenacity

from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.dagster_side.run_tags import PARTITION, PIPELINE_TAG
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage import job_definitions, job_instances
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

PRIORITY = {"dagster/priority": "1"}
"""Tag of the runs that sensors and schedules ask for: they start before those of a backfill, for which nobody waits.
Nightly runs have the sensors' priority: with a lower one they would never start while every place for a run is busy."""
EVERY_LOOK, EVERY_SECOND_LOOK = 4, 9
"""Intervals of sensors that are to be evaluated every 5 and every 10 seconds. Dagster's daemon looks every 5 s, give or
take some tenths, so a sensor with an interval of 5 or 10 is as often as not put off to the next look."""
PAUSE_SECONDS = 30.0
"""Pause after a run that failed; without it each tick would add one, as while the broker is away."""
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
"""NOT_STARTED is not among them: a run has it for milliseconds, or for ever where its creator was killed before it
queued the run."""

sensor = partial(dg.sensor, default_status=dg.DefaultSensorStatus.RUNNING)
"""A sensor that is switched on from the start."""


def owner_of(services: Services, run: dg.DagsterRun) -> str:
    """The owner of a run's claims: its id.

    A re-execution first takes over what the run that it repeats still holds. Should that one's process be alive, as
    after a forced termination, its writes are refused from then on.
    """
    if run.parent_run_id:
        services.claims.take_over(run.parent_run_id, run.run_id)
    return run.run_id


def unfinished_run(
    instance: dg.DagsterInstance, job_name: str, tags: dict[str, str], *, at_most: int, seconds: float
) -> str | None:
    """The id of one of the unfinished runs of `job_name` when there are `at_most` of them or more, else None.

    Args:
        seconds: the runs' time budget. A run that began earlier most likely only waits for what is slow, so it does
            not count.
    """
    wanted = dg.RunsFilter(job_name=job_name, statuses=UNFINISHED, tags=tags)
    records = instance.get_run_records(filters=wanted, limit=at_most)
    found = [one for one in records if one.start_time is None or time.time() - one.start_time < seconds]
    return found[0].dagster_run.run_id if len(found) == at_most else None


def failed_just_now(instance: dg.DagsterInstance, job_name: str, tags: dict[str, str], *, at_work: bool) -> str | None:
    """Why no run of `job_name` is to be asked for yet: the last one could not be launched a moment ago.

    Args:
        at_work: also after one that failed at its work. What has claims needs no such pause: they wait by themselves.
    """
    last = instance.get_run_records(filters=dg.RunsFilter(job_name=job_name, tags=tags), limit=1)
    if not last or last[0].dagster_run.status is not dg.DagsterRunStatus.FAILURE:
        return None
    began = last[0].start_time is not None
    if began and not at_work:
        return None
    # By the database's clock, or that of the machine that it ran on; either may be ahead of ours.
    waited = time.time() - (last[0].end_time if began and last[0].end_time else last[0].create_timestamp.timestamp())
    if not 0 <= waited < PAUSE_SECONDS:
        return None
    run_id, what = last[0].dagster_run.run_id, "failed" if began else "could not be launched"
    return f"run {run_id} {what}; the next is asked for {PAUSE_SECONDS:.0f} s after it"


def run_if_due(
    context: dg.SensorEvaluationContext,
    backends: BackendsResource,
    job: str,
    due: Callable[[Services], Sequence[str] | str | bool],
    *,
    days: dg.DailyPartitionsDefinition | None = None,
    seconds: float = math.inf,
    at_work: bool = False,
) -> dg.SensorResult:
    """A tick that asks for a run of `job` when something is due, for each partition that has something, when fewer than
    RUNS_PER_PIPELINE are unfinished. Of a job with partitions, runs that people and backfills asked for do not count.

    Args:
        due: the partitions (or True, where the job has none or what is due is of many), or nothing, or why no run is
            wanted now.
        days: the days that there are, by this machine's clock, which may be behind the database's. The last one is
            today; it is used for a day that is not among them, and for True.
        seconds: see `unfinished_run`.
        at_work: see `failed_just_now`.
    """
    found = due(backends.services)
    if isinstance(found, str):
        return dg.SensorResult(skip_reason=found)
    if not found:
        return dg.SensorResult(skip_reason="nothing is due")
    partitions: Sequence[str | None] = [None] if isinstance(found, bool) else found
    if days is not None:
        today = days.get_last_partition_key()
        partitions = list(dict.fromkeys(day if day and days.has_partition_key(day) else today for day in partitions))
    tags = PRIORITY | {DUE_ONLY: "true"}
    ours = {PIPELINE_TAG: job}  # which a job of that name in another code location has not
    if days is not None or at_work:
        # Counted apart, so that the runs of a backfill do not take the places of what is due. What has no partitions
        # has no backfills.
        ours = {DUE_ONLY: "true"}
        tags |= {PIPELINE_TAG: f"{job}_due"}
    most = backends.services.settings.runs_per_pipeline
    if run_id := unfinished_run(context.instance, job, ours, at_most=most, seconds=seconds):
        return dg.SensorResult(skip_reason=f"run {run_id} has not ended")
    if reason := failed_just_now(context.instance, job, ours, at_work=at_work):
        return dg.SensorResult(skip_reason=reason)
    requests = [dg.RunRequest(partition_key=partition, tags=tags) for partition in partitions]
    return dg.SensorResult(run_requests=requests)


def scheduled(job: Any, cron_schedule: str, description: str, **options: Any) -> dg.ScheduleDefinition:
    """A schedule in UTC that is switched on from the start. `options` are further ones of `dg.ScheduleDefinition`."""
    return dg.ScheduleDefinition(
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags=PRIORITY,
        description=description,
        **options,
    )


# The two sensors of run statuses return nothing: after a SkipReason Dagster leaves the next run to the next tick. It
# reports a run once, even if the sensor raises, and gives a tick 60 s.
@tenacity.retry(
    retry=tenacity.retry_if_exception_type(BackendUnavailable),
    wait=tenacity.wait_fixed(1),
    stop=tenacity.stop_after_delay(40),
    reraise=True,
)
def _give_back(
    context: dg.RunStatusSensorContext, backends: BackendsResource, *, died: bool = False, cancelled: bool = False
) -> None:
    run, claims = context.dagster_run, backends.services.claims
    with transaction(claims.engine) as connection:
        job_definitions.stopped_unfinished(connection, run.run_id)
    # A run of a partition is of one customer, and no round.
    ended = job_instances.cancel(claims.engine, run.run_id, a_round=PARTITION not in run.tags) if cancelled else 0
    count = claims.release(run.run_id, died=died)
    context.log.info(f"gave back {count} claims of run {run.run_id}; {ended} jobs ended with it")


@dg.run_failure_sensor(
    description="Gives back what a failed run still held, so that the next run takes it up at once.",
    monitor_all_code_locations=True,  # else not those of `dagster asset materialize`, which know of no location
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=EVERY_SECOND_LOOK,
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
