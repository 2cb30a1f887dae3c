"""Asks for runs of what is due, each kind at most every WORKER_INTERVAL seconds."""

import time
from functools import partial
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.avatars.jobs import avatar_data, avatar_images
from imgpipe_orchestration.dagster_side.sensors import run_if_due
from imgpipe_orchestration.resources import BackendsResource

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.claims import Queue

TICK_SECONDS = 10
"""Shorter than WORKER_INTERVAL, so that the first request after a quiet time starts soon. Not shorter still, because
each tick takes 50 ms of processor time."""


def too_early(cursor: str | None, now: float, interval: float) -> bool:
    """Whether the last run was requested less than `interval` seconds before `now`, less 2 s for jitter.

    Args:
        cursor: when the last run was requested, as Unix time. A value that is no number (people can set it in the UI)
            or lies in the future (the clock was set back) is ignored.
    """
    try:
        asked = float(cursor or "nan")
    except ValueError:
        return False
    return 0 <= now - asked < interval - 2  # never for NaN


def _look(context: dg.SensorEvaluationContext, backends: BackendsResource, job: str, queue: "Queue") -> dg.SensorResult:
    from imgpipe_orchestration.avatars.work import due

    now = time.time()
    if too_early(context.cursor, now, backends.services.settings.worker_interval):
        return dg.SensorResult(skip_reason="the last run was asked for less than WORKER_INTERVAL ago")
    return run_if_due(context, backends, job, partial(due, queue=queue), cursor=str(now))


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
