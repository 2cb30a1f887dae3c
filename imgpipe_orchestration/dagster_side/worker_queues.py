"""Which workers take a job's runs on several machines: a tag of the job, read by the launcher.

There is a queue for each resource that a run may mainly need, so that each kind of machine can be added separately, and
runs that wait for a partner do not occupy cores. On one machine the tag has no effect.
"""

from __future__ import annotations

QUEUE_TAG = "dagster-celery/queue"

CPU = {QUEUE_TAG: "cpu"}
"""Decoding and encoding images: one such run uses every core of its machine."""

NETWORK = {QUEUE_TAG: "network"}
"""Reading and writing rows, documents and objects."""

PAID = {QUEUE_TAG: "paid"}
"""Waiting for partners that are paid by the call."""

QUEUES = tuple(tags[QUEUE_TAG] for tags in (CPU, NETWORK, PAID))
