"""What a worker stored for a thing that was deleted while it worked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from imgpipe_orchestration.errors import LeaseLost
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.storage.rows import transaction


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
