"""The daily sweep."""

import dagster as dg

from imgpipe_orchestration.listings.jobs import sweep_listings

sweep_listings_daily = dg.ScheduleDefinition(
    name="sweep_listings_daily",
    job=sweep_listings,
    cron_schedule="40 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a day, when little else happens.",
)
