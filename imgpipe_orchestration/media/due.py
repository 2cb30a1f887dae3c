"""Whether anything is due: the media sensor's question, whose cost does not grow with the backlog."""

from __future__ import annotations

from datetime import UTC, datetime

from imgpipe_orchestration.media import intake, store
from imgpipe_orchestration.services import Services

AGAIN = (store.REMAKE_VARIANTS, store.REMAKE_ANALYSIS, store.UNHURRIED_ANALYSIS)
"""Queues of finished images that are to be made again."""
GLOBAL = (store.URLS, store.HEALING, store.CLEANUPS, store.CANARY)
"""Queues whose items belong to no day."""


def due_days(services: Services, *, limit: int) -> list[str]:
    """Days of upload with something due: up to `limit` that have new images, and then one that only has images to make
    again. The latest comes first and the others from the oldest on, so today's uploads do not wait until the days of an
    outage or of a backfill are done.

    An upload that no intake has seen makes its day due. Work that belongs to no day (temp URLs to replace, analyses to
    heal) is done by any run; if no day is due, it makes today due.
    """
    claims = services.claims
    uploaded = set(claims.due_partitions(store.MEDIA))
    if new := intake.first_new(services):
        uploaded.add(new.day)
    again = {day for queue in AGAIN for day in claims.due_partitions(queue, limit=1)} - uploaded
    oldest_first = sorted(uploaded)
    days = (oldest_first[-1:] + oldest_first[:-1])[:limit] + sorted(again)[:1]
    if not days and any(claims.due_partitions(queue, limit=1) for queue in GLOBAL):
        return [datetime.now(UTC).date().isoformat()]
    return days
