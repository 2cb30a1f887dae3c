"""The listings pipeline's part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import DAYS, of_group
from imgpipe_orchestration.dagster_side.sensors import EVERY_SECOND_LOOK, run_if_due, sensor
from imgpipe_orchestration.listings.assets import image_queue, listing_images, process_image_queue
from imgpipe_orchestration.listings.store import due
from imgpipe_orchestration.resources import BackendsResource


@sensor(
    job=process_image_queue,
    description="process-image-queue: asks for one run when images are due and the job's interval has passed.",
    minimum_interval_seconds=EVERY_SECOND_LOOK,  # a job with a shorter interval runs at every tick
)
def process_image_queue_sensor(
    context: dg.SensorEvaluationContext, sensor_backends: BackendsResource
) -> dg.SensorResult:
    return run_if_due(context, sensor_backends, process_image_queue.name, due, days=DAYS)


definitions = dg.Definitions(
    assets=of_group("listings", image_queue, listing_images),
    jobs=[process_image_queue],
    sensors=[process_image_queue_sensor],
)
