"""What the whole project does by the clock."""

import dagster as dg

from imgpipe_orchestration.jobs import garbage_collection, retention
from imgpipe_orchestration.sensors import AHEAD

retention_schedule = dg.ScheduleDefinition(
    job=retention,
    cron_schedule="17 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
    description="Removes history past its retention by night, before the garbage collection.",
)

garbage_collection_schedule = dg.ScheduleDefinition(
    job=garbage_collection,
    cron_schedule="47 2 * * *",
    execution_timezone="UTC",
    run_config={"ops": {"collect": {"config": {"delete": True}}}},
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
    description="Deletes garbage by night, after the retention, which leaves objects without rows.",
)
