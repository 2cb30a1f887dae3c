"""The jobs of no feature: keeping history, Dagster's and ours, and the object store from growing for ever."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from pydantic import Field

from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.runs.queues import NETWORK

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
PAGE = 200
PARTITION = "dagster/partition"
"""The tag under which Dagster notes a run's partition."""
COUNTED = ("objects", "garbage", "garbage_bytes", "young", "deleted", "missing", "repaired")
"""Figures of a garbage collection that are worth a graph, over all buckets."""


@dataclass
class PrunedRuns:
    """What became of the runs that were old enough."""

    deleted: int = 0
    kept: int = 0
    """The last successful ones of their partitions: the UI's picture of what has been made rests on their events."""


def prune_runs(instance: dg.DagsterInstance, *, days: float, most: int) -> PrunedRuns:
    """Delete ended runs older than `days` with all their events, the oldest first.

    Dagster keeps every event for ever by itself and its `retention` setting covers ticks only.

    Args:
        most: runs that are deleted at most.
    """
    pruned = PrunedRuns()
    old = dg.RunsFilter(statuses=ENDED, created_before=datetime.now(UTC) - timedelta(days=days))
    after: str | None = None  # the last run that was kept: a deleted one could not be found again
    while page := instance.get_run_records(filters=old, limit=PAGE, ascending=True, cursor=after):
        for record in page:
            run = record.dagster_run
            if _last_of_its_partition(instance, run):
                pruned.kept += 1
                after = run.run_id
            elif pruned.deleted < most:
                instance.delete_run(run.run_id)
                pruned.deleted += 1
            else:
                return pruned
    return pruned


def _last_of_its_partition(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    partition = run.tags.get(PARTITION)
    if partition is None or run.status is not dg.DagsterRunStatus.SUCCESS:
        return False
    same = dg.RunsFilter(job_name=run.job_name, statuses=[dg.DagsterRunStatus.SUCCESS], tags={PARTITION: partition})
    newest = instance.get_run_records(filters=same, limit=1)
    return bool(newest) and newest[0].dagster_run.run_id == run.run_id


@dg.op(description="Removes finished items, attempts, ended job instances and single uses of paid calls that are old.")
def tidy_tables(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    from imgpipe_orchestration.maintenance import tidy

    context.add_output_metadata(tidy(backends.services).figures())


@dg.op(description="Removes Dagster's own old runs and their events, but for the last good one of each partition.")
def tidy_runs(context: dg.OpExecutionContext, backends: BackendsResource) -> None:
    settings = backends.services.settings
    pruned = prune_runs(context.instance, days=settings.retention_runs_days, most=settings.retention_most_runs)
    context.add_output_metadata({"runs_deleted": pruned.deleted, "runs_kept": pruned.kept})


@dg.job(
    tags={"pipeline": "retention", **NETWORK},
    description="Removes history past its retention (RETENTION_* settings), bounded in each execution.",
)
def retention() -> None:
    tidy_tables()
    tidy_runs()


class Collection(dg.Config):
    """What a garbage collection does."""

    delete: bool = Field(False, description="Delete what is garbage and have what is missing made again; else tell.")
    pipelines: list[str] = Field([], description="Pipelines whose buckets are looked through; all when empty.")


@dg.op(description="Finds objects that no row names, and rows whose objects are missing, in every bucket.")
def collect(context: dg.OpExecutionContext, config: Collection, backends: BackendsResource) -> None:
    from imgpipe_orchestration.garbage import collect_garbage

    hours = backends.services.settings.gc_grace_hours
    found = collect_garbage(backends.services, config.pipelines, act=config.delete, grace_hours=hours)
    figures = [{name: value for name, value in asdict(one).items() if not isinstance(value, list)} for one in found]
    keys = [f"{one.name}: garbage `{key}`" for one in found for key in one.garbage_keys]
    keys += [f"{one.name}: missing `{key}`" for one in found for key in one.missing_keys]
    context.add_output_metadata(
        {
            "buckets": dg.MetadataValue.table([dg.TableRecord(row) for row in figures]),
            "keys": dg.MetadataValue.md("\n".join(f"- {key}" for key in keys) or "none"),
            **{name: sum(row[name] for row in figures) for name in COUNTED},
        }
    )


@dg.job(
    tags={"pipeline": "garbage", **NETWORK},
    description="Collects garbage in the object store, older than GC_GRACE_HOURS. Launched by hand it only tells.",
)
def garbage_collection() -> None:
    collect()
