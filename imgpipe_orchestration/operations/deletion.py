"""What a run of `purge` does."""

from functools import partial
from typing import Any

from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.operations import erasure, purge
from imgpipe_orchestration.storage.deletions import PURGES
from imgpipe_orchestration.storage.work import drain, working_as
from imgpipe_orchestration.wiring.services import Services

BUSY_SECONDS = 60.0
"""After this long a run is most likely sweeping for an erasure, which takes an hour where there are a million images.
The next one begins beside it."""


def run(services: Services, owner: str, *, due_only: bool = False) -> dict[str, Any]:
    """Tell the CDN, purge what is due, erase who asked for it, cancel batches that nobody waits for; returns the
    figures.

    Args:
        due_only: without a look at what has aged, which reads whole tables.
    """
    ordered = {} if due_only else purge.order_due(services)
    with working_as(services.claims, owner):
        tags = cdn.send_due(services, owner)  # before what may take long
        purged, not_purged = purge.run(services, owner)
        erase = partial(erasure.erase, services)
        erased = drain(services.claims, erasure.ERASURES, owner, erase, threads=1, batch_size=1)
        cancelled = services.half_price.cancel_abandoned()
    return {
        **{f"ordered_{name}": count for name, count in ordered.items()},
        "purged": purged,
        "not_purged": not_purged,
        "people_erased": len(erased.done),
        "people_not_erased": len(erased.retried) + len(erased.failed),
        "cdn_tags": tags,
        "ai_batches_cancelled": cancelled,
    }


def due(services: Services) -> bool:
    """Whether there is anything to do now."""
    queues = (PURGES, erasure.ERASURES, cdn.CDN_PURGES)
    waiting = any(services.claims.due_partitions(queue, limit=1) for queue in queues)
    return waiting or services.half_price.abandoned()
