"""Cleaning up: originals that no row names, and answers past the time in which a request is repeated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice

from imgpipe_orchestration.listings import once, store
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

KEPT = timedelta(days=1)
"""Far longer than any upload takes, and as long as clients repeat a request under one key (Stripe keeps a day too)."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What was removed."""

    originals: int
    answers: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def sweep(backends: Services, *, now: datetime | None = None) -> Swept:
    """Delete originals older than a day without a row, and answers older than a day.

    Raises:
        BackendUnavailable: object store or database are away.
    """
    before = (now or datetime.now(UTC)) - KEPT
    bucket = backends.listings_bucket
    old = (found.key for found in bucket.list("originals/") if found.modified is not None and found.modified < before)
    originals = 0
    while batch := list(islice(old, 500)):
        with transaction(backends.engine) as connection:
            orphans = store.unknown_originals(connection, batch)
        for key in orphans:
            bucket.delete(key)
        originals += len(orphans)
    with transaction(backends.engine) as connection:
        answers = once.forget(connection, before)
    return Swept(originals, answers)
