"""What the assets of all pipelines share."""

from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.work import Outcome

MOST_ERRORS = 50
"""Items whose errors a materialization names."""

OWNERS = ["team:images"]
"""Whom Dagster names as their owner. Checks and alerts go by the webhook, not by this."""


def partition_of(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> str:
    """The run's partition.

    Raises:
        Failure: it has none; Dagster launches a job with partitions without one as well.
    """
    if not context.has_partition_key:
        told = f"{context.job_name} works on one partition at a time: choose one (on the command line by a backfill)."
        raise dg.Failure(told, allow_retries=False)
    return context.partition_key


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
