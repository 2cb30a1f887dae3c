"""Deletion as an asset: what is purged, and a check that looks for what is left. The life cycle's definitions."""

from typing import Any

import dagster as dg

from imgpipe_orchestration.dagster_side.assets import OWNERS
from imgpipe_orchestration.dagster_side.run_tags import NETWORK, run_tags
from imgpipe_orchestration.dagster_side.sensors import owner_of, run_if_due, scheduled
from imgpipe_orchestration.resources import BackendsResource

deletions = dg.AssetSpec(
    "deletions",
    group_name="lifecycle",
    owners=OWNERS,
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
            group_name="lifecycle",
            owners=OWNERS,
            kinds={"postgres", "s3"},
            description="Removes what has been in the trash for TRASH_DAYS, or was to be removed at once, with its "
            "objects, answers and rows; erases people who asked for it; tells the CDN.",
        )
    ],
)
def purge(context: dg.AssetExecutionContext, backends: BackendsResource) -> dg.MaterializeResult[Any]:
    from imgpipe_orchestration.lifecycle import work

    return dg.MaterializeResult(metadata=work.run(backends.services, owner_of(backends.services, context.run)))


@dg.asset_check(asset=PURGE, description="Nothing is left of what was purged: no object, no row, no paid answer.")
def nothing_left(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.lifecycle import sweep

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


@dg.sensor(
    job=purge_job,
    minimum_interval_seconds=5,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for a run when something is to be purged or somebody erased at once; without the nightly look.",
)
def purge_sensor(context: dg.SensorEvaluationContext, sensor_backends: BackendsResource) -> dg.SensorResult:
    from imgpipe_orchestration.lifecycle import work

    found = run_if_due(context, sensor_backends, purge_job.name, work.due)
    requests = [
        dg.RunRequest(tags=one.tags, asset_selection=[PURGE], asset_check_keys=[]) for one in found.run_requests or []
    ]
    return dg.SensorResult(run_requests=requests) if requests else found


definitions = dg.Definitions(
    assets=[deletions, purge],
    asset_checks=[nothing_left],
    jobs=[purge_job],
    schedules=[scheduled(purge_job, "7 1 * * *", "Purges by night what is due, before the retention.")],
    sensors=[purge_sensor],
)
