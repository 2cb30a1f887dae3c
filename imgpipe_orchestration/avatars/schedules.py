"""Once a day: figures and clean-up."""

import dagster as dg

from imgpipe_orchestration.avatars.jobs import avatar_daily

avatar_daily_schedule = dg.ScheduleDefinition(
    job=avatar_daily,
    cron_schedule="20 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Figures of the avatars by day; images of cancelled and failed tasks removed.",
)
