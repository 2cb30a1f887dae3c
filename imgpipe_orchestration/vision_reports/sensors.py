"""Is anything due? Index look-ups only: a tick with nothing due calls nobody and launches nothing."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.sensors import AHEAD, unfinished_run
from imgpipe_orchestration.vision_reports.jobs import vision_batches, vision_reports

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services


def _look(
    context: dg.SensorEvaluationContext, backends: BackendsResource, job: str, due: "Callable[[Services], bool]"
) -> dg.SensorResult:
    if run := unfinished_run(context.instance, job, at_most=backends.services.settings.runs_per_pipeline):
        return dg.SensorResult(skip_reason=f"run {run} has not ended")
    if not due(backends.services):
        return dg.SensorResult(skip_reason="nothing is due")
    return dg.SensorResult(run_requests=[dg.RunRequest(tags=AHEAD)])


@dg.sensor(
    job=vision_reports,
    description="Asks for a run when a cron job's time has come, or an analysis is due for its next step.",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def vision_reports_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.vision_reports.rounds import reports_due

    return _look(context, sensor_backends, vision_reports.name, reports_due)


@dg.sensor(
    job=vision_batches,
    description="Asks for a run when a batch waits at our own analysis backend.",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def vision_batches_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.vision_reports.rounds import batches_due

    return _look(context, sensor_backends, vision_batches.name, batches_due)
