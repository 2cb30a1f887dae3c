"""What the avatars do by the clock."""

import dagster as dg

from imgpipe_orchestration.avatars.jobs import avatar_checks, avatar_daily
from imgpipe_orchestration.sensors import AHEAD

avatar_daily_schedule = dg.ScheduleDefinition(
    job=avatar_daily,
    cron_schedule="20 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
    description="Figures of the avatars by day; images of cancelled and failed tasks removed.",
)

# Of a task that has stood still for an hour a look once a day would tell tomorrow.
avatar_checks_schedule = dg.ScheduleDefinition(
    job=avatar_checks,
    cron_schedule="53 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
    description="Looks every hour for tasks that nobody works on.",
)
