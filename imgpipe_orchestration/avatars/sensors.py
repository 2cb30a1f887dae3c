"""What starts the avatars by itself: what is due, at most one run of each kind every WORKER_INTERVAL seconds."""

import time
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.avatars.jobs import avatar_data, avatar_images
from imgpipe_orchestration.partners.retry import finite
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.sensors import AHEAD, unfinished_run

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.claims import Queue

TICK_SECONDS = 10
"""Shorter than WORKER_INTERVAL, so that what comes after a quiet time begins soon; what comes in a busy time waits for
the interval. Not the shortest there is: each tick costs 50 ms of processor time, whatever it finds."""


def too_early(cursor: str | None, now: float, interval: float) -> bool:
    """Whether the last run, whose time the cursor holds, was asked for less than an interval ago (but for jitter).

    What people set as a cursor need be no time, and one that is still to come was told by a clock since set right.
    """
    asked = finite(cursor or "")
    return asked is not None and 0 <= now - asked < interval - 2


def _look(context: dg.SensorEvaluationContext, backends: BackendsResource, job: str, queue: "Queue") -> dg.SensorResult:
    from imgpipe_orchestration.avatars.work import due

    now = time.time()
    if too_early(context.cursor, now, backends.services.settings.worker_interval):
        return dg.SensorResult(skip_reason="the last run was asked for less than WORKER_INTERVAL ago")
    if not due(backends.services, queue):
        return dg.SensorResult(skip_reason="nothing is due")
    if run_id := unfinished_run(context.instance, job, at_most=backends.services.settings.runs_per_pipeline):
        return dg.SensorResult(skip_reason=f"run {run_id} has not ended")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags=AHEAD)], cursor=str(now))


@dg.sensor(
    job=avatar_data,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run when tasks wait for their people.",
)
def avatar_data_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.avatars.store import DATA

    return _look(context, sensor_backends, avatar_data.name, DATA)


@dg.sensor(
    job=avatar_images,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run when people wait for their pictures, or a completed task for its manifest.",
)
def avatar_images_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.avatars.store import IMAGES

    return _look(context, sensor_backends, avatar_images.name, IMAGES)
