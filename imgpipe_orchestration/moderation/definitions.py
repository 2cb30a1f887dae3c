"""Moderation's part of the Dagster definitions."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS, figures_of
from imgpipe_orchestration.dagster_side.run_tags import NETWORK, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of, run_if_due, scheduled
from imgpipe_orchestration.resources import BackendsResource

submissions = dg.AssetSpec(
    "submissions",
    group_name="moderation",
    owners=OWNERS,
    kinds={"postgres"},
    description="What strangers sent and has to be judged: a row for each image.",
)


@dg.asset(
    deps=[submissions],
    group_name="moderation",
    owners=OWNERS,
    kinds={"openai", "googlecloud", "postgres"},
    description="Verdicts on what strangers sent: what a provider that was away, or a command, left to be judged.",
)
def verdicts(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.moderation import judging

    done = judging.run(backends.services, owner_of(backends.services, context.run))
    return dg.MaterializeResult(metadata=figures_of(done, done="judged"))


@dg.asset_check(
    asset=verdicts,
    description="Nothing in the review list waits for a person longer than REVIEW_HOURS: open /review.",
)
def reviewed_in_time(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.moderation import review
    from imgpipe_orchestration.storage.rows import transaction

    with transaction(backends.services.engine) as connection:
        found = review.figures(connection)
    hours = round(found.oldest_seconds / 3600, 1)
    passed = hours <= backends.services.settings.review_hours
    return dg.AssetCheckResult(passed=passed, metadata={"waiting": found.waiting, "hours of the oldest": hours})


moderation_job = dg.define_asset_job(
    "moderation",
    selection=dg.AssetSelection.assets(verdicts).without_checks(),
    tags=run_tags("moderation", NETWORK, group="moderation"),
    description="Judges what waits for a verdict.",
)


@dg.sensor(
    job=moderation_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run when something waits for a verdict that no run of its own pipeline is judging.",
)
def moderation_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.moderation import judging

    return run_if_due(context, sensor_backends, moderation_job.name, judging.due)


moderation_checks = dg.define_asset_job(
    "moderation_checks",
    selection=dg.AssetSelection.checks_for_assets(verdicts),
    tags=run_tags("moderation_checks", NETWORK, group="moderation"),
    description="Looks whether somebody reviews.",
)

definitions = dg.Definitions(
    assets=[submissions, verdicts],
    asset_checks=[reviewed_in_time],
    jobs=[moderation_job, moderation_checks],
    schedules=[scheduled(moderation_checks, "23 * * * *", "Every hour.")],
    sensors=[moderation_sensor],
)
