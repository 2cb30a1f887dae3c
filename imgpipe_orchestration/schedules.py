"""What the whole project does by the clock."""

import dagster as dg

from imgpipe_orchestration.jobs import retention

retention_nightly = dg.ScheduleDefinition(
    name="retention_nightly",
    job=retention,
    cron_schedule="17 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="In the quiet of the night.",
)
