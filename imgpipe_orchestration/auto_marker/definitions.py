"""The auto-marker's part of the Dagster definitions: its sensor, check and nightly schedules."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.auto_marker.assets import (
    auto_marker,
    auto_marker_checks,
    auto_marker_customers,
    clean_images,
    news_document,
)
from imgpipe_orchestration.auto_marker.runs import due
from imgpipe_orchestration.auto_marker.store import News
from imgpipe_orchestration.dagster_side.assets import of_group
from imgpipe_orchestration.dagster_side.sensors import EVERY_LOOK, run_if_due, scheduled, sensor
from imgpipe_orchestration.resources import BackendsResource

MOST_NAMED = 20
"""Documents that the check names."""


@sensor(
    job=auto_marker,
    description=(
        "Every JOB_INTERVAL_MINUTES: is there a customer with pending images? And within seconds: has somebody asked? "
        "A sensor and not a schedule, for the interval is a setting and a cron line cannot say every seven minutes."
    ),
    minimum_interval_seconds=EVERY_LOOK,
)
def auto_marker_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    return run_if_due(context, sensor_backends, auto_marker.name, due, at_work=True)


@dg.asset_check(
    asset=clean_images,
    description="The documents marked last have what the voice generator needs: a clean image, a summary.",
)
def marked_images_are_usable(backends: BackendsResource) -> dg.AssetCheckResult:
    lacking = News(backends.services.documents).lacking(limit=MOST_NAMED)
    rows = [
        dg.TableRecord({"document": str(d["_id"]), "customer": str(d.get("customer_id")), "lacks": d["lacks"]})
        for d in lacking
    ]
    metadata = {"lacking": dg.MetadataValue.table(rows)} if rows else {"lacking": 0}
    return dg.AssetCheckResult(passed=not lacking, metadata=metadata)


# A deployment without news documents has no MongoDB, and its nights are not to be full of failed runs.
_WITH_MONGODB: dict[str, Any] = {
    "should_execute": lambda context: bool(context.resources.sensor_backends.services.settings.mongodb_url),
    "required_resource_keys": {"sensor_backends"},
}

SCHEDULES = [
    scheduled(
        auto_marker_checks,
        "23 4 * * *",
        "Looks at night whether the documents marked last still have what the voice generator needs.",
        **_WITH_MONGODB,
    ),
    scheduled(
        auto_marker_customers,
        "13 4 * * *",
        "Adds and removes partitions by night; a round adds those of the customers it meets at once.",
        **_WITH_MONGODB,
    ),
]

definitions = dg.Definitions(
    assets=of_group("auto_marker", news_document, clean_images),
    asset_checks=[marked_images_are_usable],
    jobs=[auto_marker, auto_marker_checks, auto_marker_customers],
    schedules=SCHEDULES,
    sensors=[auto_marker_sensor],
)
