"""Into the trash and out of it again; and what a worker stored for a thing that went meanwhile."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection

from imgpipe_orchestration.errors import LeaseLost, NotFound
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Deletion, Purged
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

REPLACED, RETENTION = "replaced", "retention"
"""Reasons that no person gave."""


def put(
    services: Services, connection: Connection, kind: Kind, ids: Sequence[int], *, who: str, why: str, days: float
) -> list[str]:
    """Delete things: from the commit on nobody is shown them, and no worker can write anything more about them.

    Args:
        days: how long they can be restored; 0 purges them at once, also those that are in the trash.

    Returns:
        the names (`Thing.what`) of those that exist and were not deleted before; of what is purged, of all that exist.
    """
    things = kind.stop(connection, ids)
    secret = services.settings.secret_key
    put = deletions.add(connection, services.claims, kind.name, things, who=who, why=why, days=days, secret=secret)
    cdn.order(services, connection, [f"{kind.tag}{thing.item}" for thing in things if kind.tag])
    return put


def delete(
    services: Services, kind: Kind, what: str, ids: Sequence[int], *, user: int | None, who: str, purge: bool = False
) -> Deletion:
    """Delete one thing, or say that it was. What was only rejected is then deleted by its owner as well.

    Args:
        ids: its id where it exists, else nothing.
        user: a user, who may delete only their own things; None may delete everything.
        purge: without a time in the trash.

    Raises:
        NotFound: there is no such thing, or it is somebody else's.
    """
    days = 0 if purge else services.settings.trash_days
    with transaction(services.engine) as connection:
        found = deletions.find(connection, what)
        theirs = found is None or user in {None, found.user_id}
        if found is None or (theirs and found.why.startswith(deletions.REJECTED)):
            put(services, connection, kind, ids, who=who, why="asked for", days=days)
        elif purge and theirs:
            deletions.hasten(connection, services.claims, [what])
        found = deletions.find(connection, what)
        if found is None or user not in {None, found.user_id}:  # then it is not deleted, for nothing is committed
            raise NotFound(f"There is no {what.replace('/', ' ')}.")
        return found


def restore(services: Services, kind: Kind, what: str, *, user: int | None) -> None:
    """Take a thing out of the trash as it was, if it is there.

    Raises:
        Purged: it is gone for good.
        NotFound: it is somebody else's.
    """
    with transaction(services.engine) as connection:
        found = deletions.find(connection, what, lock=True)
        if found is not None and user not in {None, found.user_id}:
            raise NotFound(f"There is no {what.replace('/', ' ')}.")
        if found is not None:
            take_out(services, connection, kind, what)


def take_out(services: Services, connection: Connection, kind: Kind, what: str) -> None:
    """Take a deleted thing out of the trash in the caller's transaction.

    Raises:
        Purged: it is gone for good.
    """
    if not _restored(services, connection, kind, [what]):
        raise Purged("It was deleted for good, and cannot be restored.")


def restore_all(services: Services, kind: Kind, whats: Sequence[str]) -> list[str]:
    """Take those of these things that are in the trash out of it; returns their states (`Kind.states`)."""
    with transaction(services.engine) as connection:
        found = _restored(services, connection, kind, whats)
        return kind.states(connection, [one.item for one in found]) if kind.ready else [""] * len(found)


def _restored(services: Services, connection: Connection, kind: Kind, whats: Sequence[str]) -> Sequence[Deletion]:
    found = deletions.remove(connection, services.claims, whats)
    kind.resume(connection, found)
    return found


@contextmanager
def dropping(services: Services, what: str, bucket: Bucket, keys: Iterable[str]) -> Iterator[None]:
    """Round the fence behind which objects that were just stored are named. If the lease is lost because the thing was
    purged, they are deleted, for its purge may be over. Where another worker has it they may be in use."""
    try:
        yield
    except LeaseLost:
        with transaction(services.engine) as connection:
            deletion = deletions.find(connection, what)
        if deletion is not None and deletion.purging_at is not None:
            bucket.discard(keys)
        raise
