"""What happens by the clock and does not follow from a setting."""

import dagster as dg

from imgpipe_orchestration.auto_marker.jobs import clean_images_checks, clean_images_customers
from imgpipe_orchestration.sensors import AHEAD


def _with_mongodb(context: dg.ScheduleEvaluationContext) -> bool:
    """A deployment without news documents has no MongoDB, and nothing fails in it every night for that."""
    return bool(context.resources.sensor_backends.services.settings.mongodb_url)


clean_images_checks_schedule = dg.ScheduleDefinition(
    job=clean_images_checks,
    cron_schedule="23 4 * * *",
    execution_timezone="UTC",
    description="Looks at night whether every marked document still has what the voice generator needs.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
    should_execute=_with_mongodb,
    required_resource_keys={"sensor_backends"},
)

clean_images_customers_schedule = dg.ScheduleDefinition(
    job=clean_images_customers,
    cron_schedule="13 4 * * *",
    execution_timezone="UTC",
    description="Adds and removes partitions by night; a round adds those of the customers it meets at once.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    tags=AHEAD,
    should_execute=_with_mongodb,
    required_resource_keys={"sensor_backends"},
)
