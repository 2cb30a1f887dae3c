"""What starts the avatars by itself: a look every WORKER_INTERVAL seconds for tasks and people that are due."""

import time
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.avatars.jobs import avatar_data, avatar_images
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.sensors import unfinished_run

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.claims import Queue

TICK_SECONDS = 5
"""Dagster's shortest tick. WORKER_INTERVAL is known when a tick runs and not when the module is loaded, so ticks in
between look at their cursor only."""


def too_early(cursor: str | None, now: float, interval: float) -> bool:
    """Whether the last look, whose time the cursor holds, is less than an interval ago (less a little for jitter)."""
    return cursor is not None and now - float(cursor) < interval - TICK_SECONDS / 2


def _look(context: dg.SensorEvaluationContext, backends: BackendsResource, job: str, queue: "Queue") -> dg.SensorResult:
    from imgpipe_orchestration.avatars.work import due

    now = time.time()
    if too_early(context.cursor, now, backends.services.settings.worker_interval):
        return dg.SensorResult(skip_reason="the next look is not due yet")
    if run_id := unfinished_run(context.instance, job):
        return dg.SensorResult(skip_reason=f"run {run_id} has not ended")
    if not due(backends.services, queue):
        return dg.SensorResult(skip_reason="nothing is due", cursor=str(now))
    return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=str(now))


@dg.sensor(
    job=avatar_data,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run when tasks wait for their people.",
)
def avatar_data_sensor(context: dg.SensorEvaluationContext, backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.avatars.store import DATA

    return _look(context, backends, avatar_data.name, DATA)


@dg.sensor(
    job=avatar_images,
    minimum_interval_seconds=TICK_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run when people wait for their pictures, or a completed task for its manifest.",
)
def avatar_images_sensor(context: dg.SensorEvaluationContext, backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.avatars.store import IMAGES

    return _look(context, backends, avatar_images.name, IMAGES)
