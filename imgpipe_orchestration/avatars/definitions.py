"""The avatars' part of the Dagster definitions: assets, jobs and sensors."""

import math
import time
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.avatars.assets import (
    DAYS,
    avatar_data,
    avatar_images,
    avatar_personas,
    avatar_pictures,
    generation_results,
    generation_tasks,
)
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.dagster_side.sensors import EVERY_SECOND_LOOK, run_if_due, sensor
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.claims import Queue
    from imgpipe_orchestration.wiring.services import Services


def _look(context: dg.SensorEvaluationContext, backends: BackendsResource, job: str, queue: "Queue") -> dg.SensorResult:
    from imgpipe_orchestration.avatars.runs import due

    def wanted(services: "Services") -> bool | str:
        if not due(services, queue):
            return False
        ours = dg.RunsFilter(job_name=job, tags={DUE_ONLY: "true"})
        last = context.instance.get_run_records(ours, limit=1)
        waited = time.time() - last[0].create_timestamp.timestamp() if last else math.inf
        # Less 2 s for jitter; below 0 a clock was set back.
        if 0 <= waited < services.settings.worker_interval - 2:
            return "the last run was asked for less than WORKER_INTERVAL ago"
        return True

    return run_if_due(context, backends, job, wanted, days=DAYS)


@sensor(
    job=avatar_data,
    minimum_interval_seconds=EVERY_SECOND_LOOK,
    description="Asks for a run when tasks wait for their people.",
)
def avatar_data_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.avatars.store import DATA

    return _look(context, sensor_backends, avatar_data.name, DATA)


@sensor(
    job=avatar_images,
    minimum_interval_seconds=EVERY_SECOND_LOOK,
    description="Asks for a run when people wait for their pictures, or a completed task for its manifest.",
)
def avatar_images_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.avatars.store import IMAGES

    return _look(context, sensor_backends, avatar_images.name, IMAGES)


definitions = dg.Definitions(
    assets=[generation_tasks, avatar_personas, generation_results, avatar_pictures],
    jobs=[avatar_data, avatar_images],
    sensors=[avatar_data_sensor, avatar_images_sensor],
)
