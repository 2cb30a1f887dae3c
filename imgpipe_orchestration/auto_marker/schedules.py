"""The auto-marker's nightly schedules. A sensor starts its rounds."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.auto_marker.jobs import auto_marker_checks, auto_marker_customers
from imgpipe_orchestration.dagster_side.schedules import scheduled


def _has_mongodb(context: dg.ScheduleEvaluationContext) -> bool:
    return bool(context.resources.sensor_backends.services.settings.mongodb_url)


# A deployment without news documents has no MongoDB, and its nights are not to be full of failed runs.
_WITH_MONGODB: dict[str, Any] = {"should_execute": _has_mongodb, "required_resource_keys": {"sensor_backends"}}

auto_marker_checks_schedule = scheduled(
    auto_marker_checks,
    "23 4 * * *",
    "Looks at night whether every marked document still has what the voice generator needs.",
    **_WITH_MONGODB,
)

auto_marker_customers_schedule = scheduled(
    auto_marker_customers,
    "13 4 * * *",
    "Adds and removes partitions by night; a round adds those of the customers it meets at once.",
    **_WITH_MONGODB,
)
