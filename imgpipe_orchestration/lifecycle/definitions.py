"""The life cycle's part of the Dagster definitions."""

import dagster as dg

from imgpipe_orchestration.dagster_side.schedules import scheduled
from imgpipe_orchestration.lifecycle.assets import deletions, nothing_left, purge, purge_job, purge_sensor

purge_schedule = scheduled(purge_job, "7 1 * * *", "Purges by night what is due, before the retention.")

definitions = dg.Definitions(
    assets=[deletions, purge],
    asset_checks=[nothing_left],
    jobs=[purge_job],
    schedules=[purge_schedule],
    sensors=[purge_sensor],
)
