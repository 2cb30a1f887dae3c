"""What starts the media pipeline by itself: new uploads, and earlier ones that are due again."""

from functools import partial

import dagster as dg

from imgpipe_orchestration.dagster_side.sensors import run_if_due
from imgpipe_orchestration.media.assets import DAYS
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

    services = sensor_backends.services
    heartbeats.beat(services.engine, heartbeats.DAEMON, seconds=20)
    # One more than can run at a time: between two runs of the latest day only so many older ones have their turn.
    due = partial(due_days, limit=services.settings.runs_per_pipeline + 1)
    return run_if_due(context, sensor_backends, media_pipeline.name, due, days=DAYS, seconds=RUN_SECONDS)
