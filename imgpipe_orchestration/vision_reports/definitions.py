"""The vision reports' part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.vision_reports import assets, jobs, sensors

definitions = dg.Definitions(
    assets=[assets.analyses, assets.reports],
    jobs=[jobs.vision_reports, jobs.vision_reports_backfill, jobs.vision_batches],
    sensors=[sensors.vision_reports_sensor, sensors.vision_batches_sensor],
)
