"""Which workers take a job's runs, where there are several machines: a tag of the job, read by the launcher.

Queues go by what a run needs most, so that each kind of machine can be added by itself and runs that wait for a partner
do not keep cores from runs that need them. On one machine the tag does nothing.
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
