"""Purging and judging, as assets with their checks and jobs."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import figures_of, is_the_sensors
from imgpipe_orchestration.dagster_side.run_tags import NETWORK, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of
from imgpipe_orchestration.resources import BackendsResource

deletions = dg.AssetSpec(
    "deletions",
    kinds={"postgres"},
    description="What was deleted and by whom: the trash, and tombstones of what was purged.",
)


PURGE = dg.AssetKey("purge")


# An asset and a job of one name need an op of another.
@dg.multi_asset(
    name="purge_what_was_deleted",
    specs=[
        dg.AssetSpec(
            PURGE,
            deps=[deletions],
            kinds={"postgres", "s3"},
            description="Removes what has been in the trash for TRASH_DAYS, or was to be removed at once, with its "
            "objects, answers and rows; erases people who asked for it; tells the CDN.",
        )
    ],
)
def purge(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.operations import deletion

    owner = owner_of(backends.services, context.run)
    return dg.MaterializeResult(metadata=deletion.run(backends.services, owner, due_only=is_the_sensors(context)))


@dg.asset_check(asset=PURGE, description="Nothing is left of what was purged: no object, no row, no paid answer.")
def nothing_left(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.operations import sweep

    found = sweep.of_everything(backends.services)
    where = "\n".join(f"- {place}: {count}" for place, count in found.where.items())
    metadata: dict[str, Any] = {
        "objects": found.objects,
        "rows": found.rows,
        "where": dg.MetadataValue.md(where or "nowhere"),
        "keys": dg.MetadataValue.md("\n".join(f"- `{key}`" for key in found.keys) or "none"),
    }
    return dg.AssetCheckResult(passed=found.clean, metadata=metadata)


purge_job = dg.define_asset_job(
    "purge",
    selection=dg.AssetSelection.assets(purge),
    tags=run_tags("purge", NETWORK, group="lifecycle") | {"dagster/max_runtime": str(6 * 3600)},
    description="Removes for good what was deleted, and looks for what is left.",
)


submissions = dg.AssetSpec(
    "submissions",
    kinds={"postgres"},
    description="What strangers sent, which has to be judged: a row for each image.",
)


@dg.asset(
    deps=[submissions],
    output_required=False,
    kinds={"openai", "googlecloud", "postgres"},
    description="Verdicts on what strangers sent: what a provider that was away, or a command, left to be judged.",
)
def verdicts(context: dg.AssetExecutionContext, backends: BackendsResource) -> Iterator[dg.MaterializeResult[Any]]:
    from imgpipe_orchestration.billing.tally import tallied
    from imgpipe_orchestration.operations import existing

    with tallied() as paid:
        done = existing.run(backends.services, owner_of(backends.services, context.run))
    figures = {**figures_of(done, done="judged"), **paid.figures()}
    if done.done or not is_the_sensors(context):  # else Dagster calls what a person asked for failed
        yield dg.MaterializeResult(metadata=figures)
    else:  # the provider is still away
        context.log_event(dg.AssetObservation(verdicts.key, metadata=figures))


@dg.asset_check(
    asset=verdicts,
    description="Nothing in the review list waits for a person longer than REVIEW_HOURS: open /review.",
)
def reviewed_in_time(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.operations import review
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


moderation_checks = dg.define_asset_job(
    "moderation_checks",
    selection=dg.AssetSelection.checks_for_assets(verdicts),
    tags=run_tags("moderation_checks", NETWORK, group="moderation"),
    description="Checks that somebody reviews.",
)
