"""How the project's schedules are made, and those of the whole project."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.jobs import garbage_collection, retention
from imgpipe_orchestration.sensors import PRIORITY


def scheduled(job: Any, cron_schedule: str, description: str, **options: Any) -> dg.ScheduleDefinition:
    """A schedule in UTC that is switched on from the start. `options` are further ones of `dg.ScheduleDefinition`."""
    return dg.ScheduleDefinition(
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        tags=PRIORITY,
        description=description,
        **options,
    )


retention_schedule = scheduled(
    retention, "17 2 * * *", "Removes history past its retention by night, before the garbage collection."
)

garbage_collection_schedule = scheduled(
    garbage_collection,
    "47 2 * * *",
    "Deletes garbage by night, after the retention, which leaves objects without rows.",
    run_config={"ops": {"collect": {"config": {"delete": True}}}},
)
