"""Asks for a run when a round is due or somebody triggered one."""

import dagster as dg

from imgpipe_orchestration.auto_marker.jobs import auto_marker
from imgpipe_orchestration.dagster_side.sensors import PRIORITY, failed_just_now, unfinished_run
from imgpipe_orchestration.resources import BackendsResource


@dg.sensor(
    job=auto_marker,
    description=(
        "Every JOB_INTERVAL_MINUTES: is there a customer with pending images? And within seconds: has somebody asked? "
        "A sensor and not a schedule, for the interval is a setting and a cron line cannot say every seven minutes."
    ),
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def auto_marker_sensor(
    context: dg.SensorEvaluationContext, sensor_backends: BackendsResource
) -> dg.RunRequest | dg.SkipReason:
    from imgpipe_orchestration.auto_marker.due import due
    from imgpipe_orchestration.errors import BackendUnavailable

    try:
        found = due(sensor_backends.services)
    except BackendUnavailable as away:
        return dg.SkipReason(away.public)
    if not found.anything:
        return dg.SkipReason(found.reason)
    running = unfinished_run(context.instance, auto_marker.name)
    if running:
        return dg.SkipReason(f"run {running} has not ended")
    if reason := failed_just_now(context.instance, auto_marker.name, at_work=True):
        return dg.SkipReason(reason)
    return dg.RunRequest(run_config={"ops": {"mark_images": {"config": {"scheduled": found.scheduled}}}}, tags=PRIORITY)
