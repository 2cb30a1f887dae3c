"""What the media pipeline does by the clock."""

import dagster as dg

from imgpipe_orchestration.media.jobs import media_checks, media_reconciliation
from imgpipe_orchestration.sensors import AHEAD

# Off the full hour, when everybody else's jobs start.
media_checks_schedule = dg.ScheduleDefinition(
    job=media_checks,
    cron_schedule="23 * * * *",
    execution_timezone="UTC",
    description="Looks every hour for faults that no single step would notice.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
)

media_reconciliation_schedule = dg.ScheduleDefinition(
    job=media_reconciliation,
    cron_schedule="41 3 * * *",
    execution_timezone="UTC",
    description="Takes up in the quiet of the night what slipped by.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
)
