"""What the assets of all pipelines share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from imgpipe_orchestration.settings import first_day
from imgpipe_orchestration.storage.work import Outcome

DAYS = dg.DailyPartitionsDefinition(start_date=first_day(), end_offset=1)
"""Days on which something was uploaded or asked for, UTC, today included."""

MOST_ERRORS = 50
"""Items whose errors a materialization names."""

DUE_ONLY = ".dagster/due_only"
"""Run tag of the sensors' runs, which do what is due, whatever its partition; so does a run without a partition, which
somebody launched by hand. Otherwise a person or a backfill asked for a partition: what is finished there is made again.
"""


def of_group(name: str, *assets: dg.AssetsDefinition | dg.AssetSpec) -> Sequence[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets, in this group and with their owner for Dagster's UI. Alerts go by the webhook, not by this."""
    return dg.map_asset_specs(lambda spec: spec.replace_attributes(group_name=name, owners=["team:images"]), assets)


def is_asked_for(context: dg.AssetExecutionContext) -> bool:
    """Whether a person or a backfill asked for the run's partition.

    Raises:
        Failure: it was launched for a range of partitions, as tags can say.
    """
    if context.has_partition_key_range and not context.has_partition_key:
        raise dg.Failure("A run has one partition. Backfill the range: that is a run for each.", allow_retries=False)
    return context.has_partition_key and not is_the_sensors(context)


def is_the_sensors(context: dg.AssetExecutionContext) -> bool:
    """Whether a sensor asked for the run, to have done what is due."""
    return context.run.tags.get(DUE_ONLY) == "true"


def reported(
    context: dg.AssetExecutionContext,
    asset: dg.AssetKey,
    figures: Mapping[str, Any],
    *,
    own: str,
    made: bool,
    others: Mapping[str, Mapping[str, Any]],
) -> Iterator[dg.MaterializeResult[Any]]:
    """What a run tells of an asset: a materialization of each partition of which it made something.

    Args:
        figures: metadata of the run's own partition. A run that somebody asked for always materializes it, or Dagster
            would call its backfill failed; a sensor's run that made nothing of it leaves an observation.
        own: that partition; in a run without one, the one that `figures` are of.
        made: whether it made something of its own partition.
        others: of further partitions of which it made something, their metadata.
    """
    for partition, metadata in sorted(others.items()):
        context.log_event(dg.AssetMaterialization(asset, partition=partition, metadata=shown(metadata)))
    if context.has_partition_key and (made or is_asked_for(context)):
        yield dg.MaterializeResult(asset_key=asset, metadata=shown(figures))
    elif own:
        event = dg.AssetMaterialization if made else dg.AssetObservation
        context.log_event(event(asset, partition=own, metadata=shown(figures)))


def day_of(context: dg.AssetExecutionContext, days: dg.DailyPartitionsDefinition) -> str:
    """The run's day (`YYYY-MM-DD`); today in a run without a partition.

    Raises:
        Failure: there is no such day, or it is several. Dagster does not check a partition that is given as a tag.
    """
    if not (is_asked_for(context) or context.has_partition_key):
        return str(days.get_last_partition_key())
    if not days.has_partition_key(context.partition_key):
        first = days.get_first_partition_key()
        raise no_partition(context, f"there is one for each day from {first} to today")
    return str(context.partition_key)


def no_partition(context: dg.AssetExecutionContext, what_there_is: str) -> dg.Failure:
    """The failure of a run of an unknown partition.

    Args:
        what_there_is: which partitions exist.
    """
    return dg.Failure(f"There is no partition {context.partition_key!r}; {what_there_is}.", allow_retries=False)


def figures_of(outcome: Outcome, *, done: str = "done") -> dict[str, Any]:
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
    """Metadata as people read it in Dagster's UI: names in words, but those of dollars."""
    return {name if name.endswith("_usd") else name.replace("_", " "): told for name, told in metadata.items()}
