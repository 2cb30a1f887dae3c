"""Jobs that make nothing: retention of history, Dagster's and ours, and garbage collection."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from imgpipe_orchestration.dagster_side.run_tags import NETWORK, run_tags
from imgpipe_orchestration.resources import BackendsResource

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PAGE_SIZE = 200
NIGHTLY = {"dagster/max_runtime": str(6 * 3600)}
"""Seconds; dagster.yaml ends other runs after an hour."""
COUNTED = ("objects", "garbage", "garbage_bytes", "young", "deleted", "missing", "lost", "repaired")
"""Figures of a garbage collection that are worth a graph, over all buckets."""


def prune_runs(instance: dg.DagsterInstance, *, days: float) -> tuple[int, int]:
    """Delete what ended runs older than `days` printed, and the runs with all their events, the oldest first. Returns
    how many were deleted, and how many were kept: those with the latest materialization of an asset or a partition,
    without which the UI shows it as missing.

    Dagster itself keeps runs for ever (its `retention` setting is for ticks only), and deleting a run leaves its files.
    """
    deleted = kept = 0
    old = dg.RunsFilter(statuses=ENDED, created_before=datetime.now(UTC) - timedelta(days=days))
    after: str | None = None  # the last run that was kept: a deleted one could not be found again
    while page := instance.get_run_records(filters=old, limit=PAGE_SIZE, ascending=True, cursor=after):
        for record in page:
            run = record.dagster_run
            # Before the run, without which nobody would look for its files again after a crash.
            instance.compute_log_manager.delete_logs(prefix=[run.run_id])
            if _made_what_is_shown(instance, run.run_id):
                kept += 1
                after = run.run_id
            else:
                instance.delete_run(run.run_id)
                deleted += 1
    return deleted, kept


def _made_what_is_shown(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run has the latest materialization of an asset or partition. By its events and not by its job and
    tags, because a run without a partition may materialize partitions of several assets."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        event = entry.dagster_event
        if event is None or event.asset_key is None:
            continue
        partitions = None if event.partition is None else [event.partition]
        same = dg.AssetRecordsFilter(asset_key=event.asset_key, asset_partitions=partitions)
        newest = instance.fetch_materializations(same, limit=1).records  # none: somebody wiped them in the UI
        if newest and newest[0].run_id == run_id:
            return True
    return False


@dg.op(description="Removes finished items, attempts, ended job instances and single uses of paid calls that are old.")
def tidy_tables(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.operations.tidying import tidy

    context.add_output_metadata(tidy(backends.services))


@dg.op(description="Removes Dagster's old runs, events and logs, but for those that the assets show.")
def tidy_runs(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    deleted, kept = prune_runs(context.instance, days=backends.services.settings.retention_days)
    context.add_output_metadata({"runs_deleted": deleted, "runs_kept": kept})


@dg.job(
    tags=run_tags("retention", NETWORK) | NIGHTLY,
    description="Removes history older than RETENTION_DAYS. What six hours leave goes the next night.",
)
def retention() -> None:
    tidy_tables()
    tidy_runs()


class Collection(dg.Config):
    """Configuration of a garbage collection."""

    delete: bool = Field(False, description="Delete garbage and have what is missing made again; else only report.")
    pipelines: list[str] = Field([], description="Pipelines whose buckets are looked through; all when empty.")


@dg.op(description="Finds objects that no row names, and rows whose objects are missing, in every bucket.")
def collect(context: dg.OpExecutionContext, config: Collection, backends: BackendsResource) -> None:
    from imgpipe_orchestration.errors import NotFound
    from imgpipe_orchestration.operations.tidying import GRACE_HOURS, collect_garbage

    try:
        found = collect_garbage(backends.services, config.pipelines, act=config.delete, grace_hours=GRACE_HOURS)
    except NotFound as unknown:
        raise dg.Failure(unknown.public, allow_retries=False) from None
    for one in found:
        if one.lost:
            context.log.error(f"{one.name}: {one.lost} objects are missing that cannot be made again")
    figures = [{name: value for name, value in asdict(one).items() if not isinstance(value, list)} for one in found]
    keys = [f"{one.name}: garbage `{key}`" for one in found for key in one.garbage_keys]
    keys += [f"{one.name}: missing `{key}`" for one in found for key in one.missing_keys]
    metadata = {
        "buckets": dg.MetadataValue.table([dg.TableRecord(row) for row in figures]),
        "keys": dg.MetadataValue.md("\n".join(f"- {key}" for key in keys) or "none"),
        **{name: sum(row[name] for row in figures) for name in COUNTED},
    }
    wrong = [one.doubt for one in found if one.doubt]
    if any(one.lost for one in found):
        wrong.append("Objects are missing that cannot be made again.")
    if wrong:  # red, so that somebody is told
        raise dg.Failure(" ".join(wrong), metadata=metadata, allow_retries=False)
    context.add_output_metadata(metadata)


@dg.job(
    tags=run_tags("garbage", NETWORK) | NIGHTLY,
    description="Collects garbage in the object store, older than a day. Launched by hand it only reports.",
)
def garbage_collection() -> None:
    collect()
