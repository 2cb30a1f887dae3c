"""The media pipeline's part of the Dagster definitions: its sensor and schedules."""

from functools import partial

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import DAYS, of_group
from imgpipe_orchestration.dagster_side.sensors import EVERY_LOOK, run_if_due, scheduled, sensor
from imgpipe_orchestration.media.assets import (
    CHECKS,
    evaluation_set,
    media_checks,
    media_evaluation,
    media_images,
    media_pipeline,
    media_reconciliation,
    model_evaluation,
    pending_images,
)
from imgpipe_orchestration.resources import BackendsResource


@sensor(
    job=media_pipeline,
    minimum_interval_seconds=EVERY_LOOK,
    description="Asks for runs of the latest and the oldest days of upload that have images due.",
)
def pending_images_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.media.intake import due_days
    from imgpipe_orchestration.media.stages import RUN_SECONDS
    from imgpipe_orchestration.storage import heartbeats

    services = sensor_backends.services
    heartbeats.beat(services.engine, heartbeats.DAEMON, seconds=20)
    # One more than can run at a time: between two runs of the latest day only so many older ones have their turn.
    due = partial(due_days, limit=services.settings.runs_per_pipeline + 1)
    return run_if_due(context, sensor_backends, media_pipeline.name, due, days=DAYS, seconds=RUN_SECONDS)


definitions = dg.Definitions(
    assets=of_group("media", pending_images, media_images, evaluation_set, model_evaluation),
    asset_checks=CHECKS,
    jobs=[media_pipeline, media_checks, media_evaluation, media_reconciliation],
    sensors=[pending_images_sensor],
    schedules=[  # off the full hour, when everybody else's jobs start
        scheduled(media_checks, "23 * * * *", "Looks every hour for faults that no single step would notice."),
        scheduled(media_reconciliation, "41 3 * * *", "Takes up in the quiet of the night what slipped by."),
    ],
)
