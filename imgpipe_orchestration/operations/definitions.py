"""The operations' part of the Dagster definitions: when purging, judging, retention and garbage collection run."""

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import of_group
from imgpipe_orchestration.dagster_side.sensors import EVERY_SECOND_LOOK, run_if_due, scheduled, sensor
from imgpipe_orchestration.operations.assets import (
    PURGE,
    deletions,
    moderation_checks,
    moderation_job,
    nothing_left,
    purge,
    purge_job,
    reviewed_in_time,
    submissions,
    verdicts,
)
from imgpipe_orchestration.operations.jobs import garbage_collection, retention
from imgpipe_orchestration.resources import BackendsResource


@sensor(
    job=purge_job,
    minimum_interval_seconds=EVERY_SECOND_LOOK,
    description="Asks for a run when something is to be purged or somebody erased at once; without the nightly look.",
)
def purge_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.operations import deletion

    found = run_if_due(context, sensor_backends, purge_job.name, deletion.due, seconds=deletion.BUSY_SECONDS)
    requests = [
        dg.RunRequest(tags=one.tags, asset_selection=[PURGE], asset_check_keys=[]) for one in found.run_requests or []
    ]
    return dg.SensorResult(run_requests=requests) if requests else found


@sensor(
    job=moderation_job,
    minimum_interval_seconds=EVERY_SECOND_LOOK,
    description="Asks for a run when something waits for a verdict that no run of its own pipeline is judging.",
)
def moderation_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.operations import existing

    return run_if_due(context, sensor_backends, moderation_job.name, existing.due)


definitions = dg.Definitions(
    assets=[*of_group("lifecycle", deletions, purge), *of_group("moderation", submissions, verdicts)],
    asset_checks=[nothing_left, reviewed_in_time],
    jobs=[purge_job, moderation_job, moderation_checks, garbage_collection, retention],
    schedules=[
        scheduled(purge_job, "7 1 * * *", "Purges by night what is due, before the retention."),
        scheduled(moderation_checks, "23 * * * *", "Every hour."),
        scheduled(
            retention, "17 2 * * *", "Removes history past its retention by night, before the garbage collection."
        ),
        scheduled(
            garbage_collection,
            "47 2 * * *",
            "Deletes garbage by night, after the retention, which leaves objects without rows.",
            run_config={"ops": {"collect": {"config": {"delete": True}}}},
        ),
    ],
    sensors=[purge_sensor, moderation_sensor],
)
