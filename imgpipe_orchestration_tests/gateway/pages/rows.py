"""Rows as the pipelines leave them, for pages to show."""

from __future__ import annotations

from imgpipe_orchestration.errors import Permanent
from imgpipe_orchestration.media.store import MEDIA
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item, Queue
from imgpipe_orchestration.storage.rows import transaction


def fail(services: Services, queue: Queue, ids: list[int], reason: str | Permanent = "The file is no image.") -> None:
    """Items that were tried once and given up."""
    error = reason if isinstance(reason, Permanent) else Permanent(reason)
    with transaction(services.engine) as connection:
        services.claims.enqueue(connection, queue, [Item(i, tenant="7") for i in ids])
    for claim in services.claims.claim(queue, "0f5a7c52-run", len(ids)):
        with services.claims.fenced(claim) as connection:
            services.claims.failed(connection, queue, claim, error)


def finish(services: Services, queue: Queue, ids: list[int]) -> None:
    """Items that are done."""
    with transaction(services.engine) as connection:
        services.claims.enqueue(connection, queue, [Item(i, tenant="7") for i in ids])
    for claim in services.claims.claim(queue, "0f5a7c52-run", len(ids)):
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, queue, claim)


def failed_media(services: Services, count: int = 3) -> None:
    fail(services, MEDIA, list(range(1, count + 1)))
