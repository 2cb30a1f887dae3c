"""Is anything due? Index look-ups only: a tick with nothing due calls nobody and launches nothing."""

import dagster as dg

from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.sensors import unfinished_run
from imgpipe_orchestration.vision_reports.jobs import vision_batches, vision_reports


@dg.sensor(
    job=vision_reports,
    description="Asks for a run when a cron job's time has come, or an analysis is due for its next step.",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def vision_reports_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.vision_reports import rounds

    most = sensor_backends.services.settings.runs_per_pipeline
    if run := unfinished_run(context.instance, vision_reports.name, at_most=most):
        return dg.SensorResult(skip_reason=f"run {run} has not ended")
    if not rounds.reports_due(sensor_backends.services):
        return dg.SensorResult(skip_reason="nothing is due")
    return dg.SensorResult(run_requests=[dg.RunRequest()])


@dg.sensor(
    job=vision_batches,
    description="Asks for a run when a batch waits at our own analysis backend.",
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def vision_batches_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.vision_reports import rounds

    most = sensor_backends.services.settings.runs_per_pipeline
    if run := unfinished_run(context.instance, vision_batches.name, at_most=most):
        return dg.SensorResult(skip_reason=f"run {run} has not ended")
    if not rounds.batches_due(sensor_backends.services):
        return dg.SensorResult(skip_reason="nothing is due")
    return dg.SensorResult(run_requests=[dg.RunRequest()])
