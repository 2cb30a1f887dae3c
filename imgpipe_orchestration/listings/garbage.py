"""Which rows name which objects in the listings' bucket: originals and finished WebP."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from imgpipe_orchestration.listings.store import QUEUE, item_of
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.garbage import Holding, Promise, named_by, promised_by
from imgpipe_orchestration.storage.rows import transaction


def holding(services: Services) -> Holding:
    """Every image has an original; a processed one has its WebP too, which is made again when it is missing
    or of another size."""
    return Holding(
        name="listings",
        bucket=services.listings_bucket,
        prefixes=("",),
        named=named_by(services.engine, _NAMED),
        promised=promised_by(services.engine, _PROMISED),
        sized=True,
        repair=lambda missing: _make_again(services, missing),
        is_original=lambda promise: promise.key.startswith("originals/"),
    )


def _make_again(services: Services, missing: Sequence[Promise]) -> int:
    ids = sorted({promise.row for promise in missing})
    with transaction(services.engine) as connection:
        items = [item_of(row, row.day) for row in connection.execute(_ITEMS, {"ids": ids})]
        services.claims.enqueue(connection, QUEUE, items, again=True)
    return len(items)  # also those that were queued already


# A WebP lies at the root, an original below `originals/`. Other folders are not ours, so their objects count as named.
_NAMED = text("""
    select key from unnest(cast(:keys as text[])) as key
    where exists (select from image_queue where original_key = key)
    or exists (select from image_queue where file_name = key)
    or (key like '%/%' and key not like 'originals/%')
""")

_PROMISED = text("""
    with page as (
        select id, original_key, bytes, file_name, webp_bytes, status from image_queue
        where id > :after order by id limit :limit / 2
    )
    select id, original_key, bytes from page
    union all
    select id, file_name, webp_bytes from page where status = 'processed'
    order by 1
""")

_ITEMS = text("""
    select id, user_id, to_char(created_at, 'YYYY-MM-DD') as day from image_queue
    where id = any(cast(:ids as bigint[])) and status = 'processed'
""")
