"""The sensor that asks for a run when something is due."""

import dagster as dg

from imgpipe_orchestration.dagster_side.sensors import PRIORITY, failed_just_now, unfinished_run
from imgpipe_orchestration.listings.jobs import process_image_queue
from imgpipe_orchestration.listings.timing import LOOK_EVERY
from imgpipe_orchestration.resources import BackendsResource


@dg.sensor(
    job=process_image_queue,
    description="process-image-queue: asks for one run when images are due and the job's interval has passed.",
    minimum_interval_seconds=int(LOOK_EVERY.total_seconds()),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def process_image_queue_sensor(
    context: dg.SensorEvaluationContext, sensor_backends: BackendsResource
) -> dg.RunRequest | dg.SkipReason:
    from imgpipe_orchestration.listings import control

    running = unfinished_run(context.instance, process_image_queue.name)
    most = sensor_backends.services.settings.runs_per_pipeline
    another = most > 1 and unfinished_run(context.instance, process_image_queue.name, at_most=most) is None
    reason = control.reason_to_wait(sensor_backends.services, running, another=another)
    reason = reason or failed_just_now(context.instance, process_image_queue.name)
    return dg.SkipReason(reason) if reason else dg.RunRequest(tags=PRIORITY)
