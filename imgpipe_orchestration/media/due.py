"""Whether anything is due: the media sensor's question, whose cost does not grow with the backlog."""

from __future__ import annotations

from datetime import UTC, datetime

from imgpipe_orchestration.media import intake, store
from imgpipe_orchestration.services import Services

GLOBAL = (store.URLS, store.HEALING, store.CLEANUPS)
"""Queues whose items belong to no day."""


def due_days(services: Services, *, limit: int) -> list[str]:
    """Days of upload with something due, oldest first.

    An upload that no intake has seen makes its day due. Work that belongs to no day (temp URLs to replace, analyses to
    heal) is done by any run; if no day is due, it makes today due.
    """
    days = {
        day
        for queue in (store.MEDIA, store.REMAKE_VARIANTS, store.REMAKE_ANALYSIS)
        for day in services.claims.due_partitions(queue, limit=limit)
    }
    if new := intake.first_new(services):
        days.add(new.day)
    if not days and any(services.claims.due_partitions(queue) for queue in GLOBAL):
        days.add(datetime.now(UTC).date().isoformat())
    return sorted(days)[:limit]
