"""The avatars' part of the Dagster definitions: assets, jobs and sensors."""

import math
import time
from typing import Any

import dagster as dg

from imgpipe_orchestration.avatars.assets import (
    GROUP,
    avatar_data,
    avatar_images,
    avatar_personas,
    avatar_pictures,
    generation_results,
    generation_tasks,
)
from imgpipe_orchestration.avatars.store import DATA, IMAGES, due
from imgpipe_orchestration.dagster_side.assets import DAYS, DUE_ONLY, of_group
from imgpipe_orchestration.dagster_side.sensors import EVERY_SECOND_LOOK, run_if_due, sensor
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage.claims import Queue
from imgpipe_orchestration.wiring.services import Services


def _sensor(job: Any, queue: Queue, description: str) -> dg.SensorDefinition:
    """Asks for a run of the job when its queue has something due, and not more often than WORKER_INTERVAL."""

    @sensor(name=f"{job.name}_sensor", job=job, minimum_interval_seconds=EVERY_SECOND_LOOK, description=description)
    def look(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
        def wanted(services: Services) -> bool | str:
            if not due(services, queue):
                return False
            ours = dg.RunsFilter(job_name=job.name, tags={DUE_ONLY: "true"})
            last = context.instance.get_run_records(ours, limit=1)
            waited = time.time() - last[0].create_timestamp.timestamp() if last else math.inf
            # Less 2 s for jitter; below 0 a clock was set back.
            if 0 <= waited < services.settings.worker_interval - 2:
                return "the last run was asked for less than WORKER_INTERVAL ago"
            return True

        return run_if_due(context, sensor_backends, job.name, wanted, days=DAYS)

    return look


avatar_data_sensor = _sensor(avatar_data, DATA, "Asks for a run when tasks wait for their people.")
avatar_images_sensor = _sensor(
    avatar_images, IMAGES, "Asks for a run when people wait for their pictures, or a completed task for its manifest."
)

definitions = dg.Definitions(
    assets=of_group(GROUP, generation_tasks, avatar_personas, generation_results, avatar_pictures),
    jobs=[avatar_data, avatar_images],
    sensors=[avatar_data_sensor, avatar_images_sensor],
)
