"""The tags of a job's runs that imgpipe and Dagster's run queue read.

Ours begin with `.dagster/`, so that the Dagster UI shows people none of them; filters find them all the same.
"""

PARTITION = "dagster/partition"
"""Dagster's tag of a run's partition."""

PIPELINE_TAG = ".dagster/pipeline"
"""What the limits in dagster.yaml count runs by: each job has its own, else a backfill would keep due work waiting."""

GROUP_TAG = ".dagster/group"
"""The feature. Our pages link to its runs by it."""

QUEUE_TAG = ".dagster/queue"
"""Which workers take the run on several machines; the launcher for one machine ignores it.

There is a queue for each resource that a run may mainly need, so that each kind of machine can be added separately, and
runs that wait for a partner do not occupy cores.
"""

CPU = "cpu"
"""Decoding and encoding images: one such run uses every core of its machine."""

NETWORK = "network"
"""Reading and writing rows, documents and objects."""

PAID = "paid"
"""Waiting for partners that are paid by the call."""

QUEUES = (CPU, NETWORK, PAID)


def run_tags(pipeline: str, queue: str, group: str = "") -> dict[str, str]:
    """The tags of a job. `group` is empty for a job that serves all features."""
    return {PIPELINE_TAG: pipeline, QUEUE_TAG: queue} | ({GROUP_TAG: group} if group else {})
