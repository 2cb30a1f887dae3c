"""How the project's schedules are made."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.dagster_side.sensors import PRIORITY


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
