"""What every pipeline's sensors share: how many runs at a time, and claims that come back when a run ends badly."""

import dagster as dg

from imgpipe_orchestration.jobs import PARTITION
from imgpipe_orchestration.resources import BackendsResource

UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


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


def _give_back(
    context: dg.RunStatusSensorContext, backends: BackendsResource, *, died: bool = False, cancelled: bool = False
) -> dg.SkipReason:
    from imgpipe_orchestration.storage import job_instances

    owner = owner_of(context.dagster_run)
    count = backends.services.claims.release(owner, died=died)
    jobs = job_instances.interrupted(backends.services.engine, owner, again=not cancelled)
    return dg.SkipReason(f"gave back {count} claims and {jobs} job instances of run {context.dagster_run.run_id}")


@dg.run_failure_sensor(
    name="claims_of_failed_runs",
    description="Gives back what a failed run still held, so that the next run takes it up at once.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=10,
)
def claims_of_failed_runs(context: dg.RunFailureSensorContext, backends: BackendsResource) -> dg.SkipReason:
    # A run that raised an error says so for the step. One that run monitoring found dead does not: what it was working
    # on may have killed it.
    return _give_back(context, backends, died=not context.get_step_failure_events())


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    name="claims_of_cancelled_runs",
    description="Gives back what a cancelled run still held.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
)
def claims_of_cancelled_runs(context: dg.RunStatusSensorContext, backends: BackendsResource) -> dg.SkipReason:
    return _give_back(context, backends, cancelled=True)


@dg.run_failure_sensor(
    name="alert_on_failed_runs",
    description="Tells ALERT_WEBHOOK_URL of every failed run: job, reason, link.",
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
)
def alert_on_failed_runs(context: dg.RunFailureSensorContext, backends: BackendsResource) -> dg.SkipReason:
    from imgpipe_orchestration import alerts

    settings, run = backends.services.settings, context.dagster_run
    if not settings.alert_webhook_url:
        return dg.SkipReason("ALERT_WEBHOOK_URL is not set")
    reasons = []
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:  # the outermost only says which step it was
            error = error.cause
        reasons += [error.message] if error is not None else []
    message = alerts.run_failed(
        job=run.job_name,
        run_id=run.run_id,
        link=f"{settings.dagster_url.rstrip('/')}/runs/{run.run_id}",
        reason=(reasons[0] if reasons else context.failure_event.message or "The run died without a word.").strip(),
        partition=run.tags.get(PARTITION, ""),
    )
    alerts.send(settings.alert_webhook_url, message)
    return dg.SkipReason(f"told of run {run.run_id}")
