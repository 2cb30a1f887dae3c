"""The auto-marker's part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.auto_marker import assets, checks, jobs, schedules, sensors

definitions = dg.Definitions(
    assets=[assets.news_document, assets.clean_images],
    asset_checks=[checks.marked_images_are_usable],
    jobs=[jobs.auto_marker, jobs.auto_marker_backfill, jobs.auto_marker_checks, jobs.auto_marker_customers],
    schedules=[schedules.auto_marker_checks_schedule, schedules.auto_marker_customers_schedule],
    sensors=[sensors.auto_marker_sensor],
)
