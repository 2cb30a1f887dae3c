"""What the assets of all pipelines share."""

import dagster as dg

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
