"""Purging: the objects first, then the rows, the tombstone last. Killed at any point it is run again.

From `deletions.begin` on a thing cannot be restored, so nothing half-gone is ever shown. Its rows go only when its
objects are gone, because they are what names the objects.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, LeaseLost
from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.operations.kinds import KIND, KINDS
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.deletions import PURGES, Deletion
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

BATCH = 500
"""Things that are purged together."""


def order_due(services: Services) -> dict[str, int]:
    """Look through all kinds, as every night: what was replaced for long enough goes into the trash, what has been
    kept for long enough is purged, and so is what was in the trash for long enough. Returns how many of each."""
    found = {"replaced": 0, "expired": 0, "trash": 0}
    settings = services.settings
    for kind in KINDS:
        for name, aging, why, days in (
            ("replaced", kind.superseded, trash.REPLACED, settings.trash_days),
            ("expired", kind.expired, trash.RETENTION, 0.0),
        ):
            put = [""] if aging else []
            while aging and put:
                with transaction(services.engine) as connection:
                    ids = kind.due(connection, aging, settings)
                    put = trash.put(services, connection, kind, ids, who="imgpipe", why=why, days=days) if ids else []
                found[name] += len(put)
    while True:
        with transaction(services.engine) as connection:
            ordered = deletions.order_due(connection, services.claims, limit=1000)
        found["trash"] += ordered
        if not ordered:
            return found


def run(services: Services, owner: str) -> tuple[int, int]:
    """Purge what is due; returns how many things were purged, and how many were not. The caller keeps the leases: see
    `working_as`."""
    purged = failed = 0
    claims = services.claims
    while batch := claims.owned(PURGES, owner) + claims.claim(PURGES, owner, BATCH):
        done = purge_each(services, batch)
        purged += len(done.done)
        failed += len(done.retried) + len(done.lost)
        if not done.done:
            break
    for stray in (file for kind in KINDS for file in kind.strays(services)):
        stray.unlink(missing_ok=True)
    return purged, failed


def purge_each(services: Services, batch: list[Claim]) -> Outcome:
    """Purge a batch. What cannot be purged is found by halving the batch, and fails alone; it is tried again."""
    try:
        _purge(services, batch)
    except LeaseLost:
        return Outcome(lost=[claim.item_id for claim in batch])
    except ImgpipeError as error:
        if len(batch) > 1 and not isinstance(error, BackendUnavailable):
            half = len(batch) // 2
            total = purge_each(services, batch[:half])
            total.add(purge_each(services, batch[half:]))
            return total
        log.warning("not purged yet", extra={"things": len(batch), "error": error.public})
        for claim in batch:
            with services.claims.fenced(claim) as connection:
                services.claims.failed(connection, PURGES, claim, error)
        return Outcome(retried={claim.item_id: error.public for claim in batch})
    return Outcome(done=batch)


def _purge(services: Services, batch: Sequence[Claim]) -> None:
    with transaction(services.engine) as connection:
        begun = deletions.begin(connection, [claim.item_id for claim in batch])
    by_kind: dict[str, list[Deletion]] = defaultdict(list)
    for deletion in begun:
        by_kind[deletion.kind].append(deletion)
    removed: dict[int, int] = {}
    for name, theirs in by_kind.items():
        removed |= _remove_objects(services, KIND[name], theirs)
    with transaction(services.engine) as connection:
        for claim in batch:  # also of those that were restored, or purged before: nothing is left to do
            services.claims.finish(connection, PURGES, claim)
        for name, theirs in by_kind.items():
            KIND[name].erase(services, connection, [deletion.item for deletion in theirs])
        deletions.end(connection, removed)


def _remove_objects(services: Services, kind: Kind, theirs: Sequence[Deletion]) -> dict[int, int]:
    """Delete the objects of some things of a kind; returns how many there were, by deletion."""
    bucket = kind.bucket(services)
    with transaction(services.engine) as connection:
        owned = {row.id: row for row in kind.find(connection, [deletion.item for deletion in theirs])}
    with ThreadPoolExecutor(4, thread_name_prefix="purge") as pool:
        listed = zip(owned.values(), pool.map(lambda row: under(bucket, row.prefixes), owned.values()), strict=True)
        keys = {row.id: {*row.keys, *more} for row, more in listed}
    bucket.delete_all(key for ones in keys.values() for key in ones)
    return {one.id: len(keys.get(one.item, ())) for one in theirs}


def under(bucket: Bucket, prefixes: Iterable[str]) -> list[str]:
    """The keys with one of these beginnings."""
    return [stored.key for prefix in prefixes for stored in bucket.list(prefix)]
