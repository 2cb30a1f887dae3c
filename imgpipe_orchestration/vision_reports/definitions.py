"""The vision reports' part of the Dagster definitions. A tick only looks for what is due, and calls no partner."""

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import of_group
from imgpipe_orchestration.dagster_side.sensors import EVERY_LOOK, run_if_due, sensor
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.vision_reports.assets import (
    DAYS,
    GROUP,
    analyses,
    batches,
    reports,
    vision_batches,
    vision_reports,
)


@sensor(
    job=vision_reports,
    description="Asks for a run when a cron job's time has come, or an analysis is due for its next step.",
    minimum_interval_seconds=EVERY_LOOK,
)
def vision_reports_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.vision_reports.runs import RUN_SECONDS, is_due

    return run_if_due(context, sensor_backends, vision_reports.name, is_due, days=DAYS, seconds=RUN_SECONDS)


@sensor(
    job=vision_batches,
    description="Asks for a run when a batch waits at our own analysis backend.",
    minimum_interval_seconds=EVERY_LOOK,
)
def vision_batches_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.vision_reports.batch_work import is_due

    return run_if_due(context, sensor_backends, vision_batches.name, is_due, days=DAYS)


definitions = dg.Definitions(
    assets=of_group(GROUP, analyses, reports, batches),
    jobs=[vision_reports, vision_batches],
    sensors=[vision_reports_sensor, vision_batches_sensor],
)
