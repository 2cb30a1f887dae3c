"""What the assets of all pipelines share."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.work import Outcome

MOST_ERRORS = 50
"""Items whose errors a materialization names."""

OWNERS = ["team:images"]
"""Whom Dagster names as their owner. Checks and alerts go by the webhook, not by this."""

DUE_ONLY = ".dagster/due_only"
"""Run tag of the sensors' runs, which do what is due, whatever its partition. Without it a person or a backfill asked
for a partition: then what is finished is made again."""


def is_asked_for(context: dg.AssetExecutionContext) -> bool:
    """Whether a person or a backfill asked for the run, and not a sensor."""
    return context.run.tags.get(DUE_ONLY) != "true"


def reported(
    context: dg.AssetExecutionContext,
    asset: dg.AssetKey,
    figures: Mapping[str, Any],
    *,
    made: bool,
    others: Mapping[str, Mapping[str, Any]],
) -> Iterator[dg.MaterializeResult[Any]]:
    """What a run tells of an asset: a materialization of each partition of which it made something.

    Args:
        figures: metadata of the run's own partition. A run that somebody asked for always materializes it, or Dagster
            would call its backfill failed; a sensor's run that made nothing of it leaves an observation.
        made: whether it made something of its own partition.
        others: of further partitions of which it made something, their metadata.
    """
    for partition, metadata in sorted(others.items()):
        context.log_event(dg.AssetMaterialization(asset, partition=partition, metadata=shown(metadata)))
    if made or is_asked_for(context):
        yield dg.MaterializeResult(asset_key=asset, metadata=shown(figures))
    else:
        context.log_event(dg.AssetObservation(asset, partition=context.partition_key, metadata=shown(figures)))


def partition_of(context: dg.AssetExecutionContext, is_known: Callable[[str], bool], what_there_is: str) -> str:
    """The run's partition.

    Args:
        what_there_is: which partitions exist, for the message.

    Raises:
        Failure: it has none or an unknown one. Dagster launches partitioned jobs without a partition too, and doesn't
            check one given as a tag.
    """
    if not context.has_partition_key:
        told = f"{context.job_name} works on one partition at a time: choose one (on the command line by a backfill)."
        raise dg.Failure(told, allow_retries=False)
    if not is_known(context.partition_key):
        raise dg.Failure(f"There is no partition {context.partition_key!r}; {what_there_is}.", allow_retries=False)
    return str(context.partition_key)


def day_of(context: dg.AssetExecutionContext, days: dg.DailyPartitionsDefinition) -> str:
    """The run's day (`YYYY-MM-DD`).

    Raises:
        Failure: as `partition_of`.
    """
    first = days.get_first_partition_key()
    return partition_of(context, days.has_partition_key, f"there is one for each day from {first} to today")


def figures_of(outcome: "Outcome", *, done: str = "done") -> dict[str, Any]:
    """The result of a batch as metadata: totals, and the errors by item.

    Args:
        done: the name of the number of items that are done.
    """
    figures: dict[str, Any] = {
        done: len(outcome.done),
        "retried": len(outcome.retried),
        "failed": len(outcome.failed),
        "left": len(outcome.left),
        "seconds": round(outcome.seconds, 3),
    }
    if errors := {**outcome.retried, **outcome.failed}:
        rows = [dg.TableRecord({"item": item, "error": error}) for item, error in sorted(errors.items())[:MOST_ERRORS]]
        figures["errors"] = dg.MetadataValue.table(rows)
    return figures


def shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as people read it in Dagster's UI: pictures first, and names in words, but those of dollars."""
    pictures = [name for name, value in metadata.items() if isinstance(value, dg.MarkdownMetadataValue)]
    names = [*pictures, *(name for name in metadata if name not in pictures)]
    return {name if name.endswith("_usd") else name.replace("_", " "): metadata[name] for name in names}
