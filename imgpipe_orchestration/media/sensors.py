"""What starts the media pipeline by itself: new uploads, and earlier ones that are due again."""

import dagster as dg

from imgpipe_orchestration.dagster_side.sensors import PRIORITY, failed_just_now, unfinished_run
from imgpipe_orchestration.media.assets import DUE_ONLY
from imgpipe_orchestration.media.jobs import media_pipeline
from imgpipe_orchestration.resources import BackendsResource


@dg.sensor(
    job=media_pipeline,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run for each day of upload that has images due; launches nothing when none is.",
)
def pending_images_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.media.driving import RUN_SECONDS
    from imgpipe_orchestration.media.due import due_days
    from imgpipe_orchestration.storage import heartbeats

    heartbeats.beat_at_times(sensor_backends.services.engine, heartbeats.DAEMON, seconds=20)
    most = sensor_backends.services.settings.runs_per_pipeline
    # One more than can run at a time: between two runs of the latest day only so many older ones have their turn.
    days = due_days(sensor_backends.services, limit=most + 1)
    if not days:
        return dg.SensorResult(skip_reason="nothing is due")
    tags = {DUE_ONLY: "true"}
    if run_id := unfinished_run(context.instance, media_pipeline.name, tags, at_most=most, seconds=RUN_SECONDS):
        return dg.SensorResult(skip_reason=f"run {run_id} has not ended")
    if reason := failed_just_now(context.instance, media_pipeline.name):
        return dg.SensorResult(skip_reason=reason)
    return dg.SensorResult(
        run_requests=[dg.RunRequest(partition_key=day, tags={DUE_ONLY: "true", **PRIORITY}) for day in days]
    )
