"""The media pipeline's part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.media.assets import evaluation_set, media_images, model_evaluation, pending_images
from imgpipe_orchestration.media.checks import CHECKS
from imgpipe_orchestration.media.jobs import media_checks, media_evaluation, media_pipeline, media_reconciliation
from imgpipe_orchestration.media.schedules import media_checks_schedule, media_reconciliation_schedule
from imgpipe_orchestration.media.sensors import pending_images_sensor

definitions = dg.Definitions(
    assets=[pending_images, media_images, evaluation_set, model_evaluation],
    asset_checks=CHECKS,
    jobs=[media_pipeline, media_checks, media_evaluation, media_reconciliation],
    schedules=[media_checks_schedule, media_reconciliation_schedule],
    sensors=[pending_images_sensor],
)
