"""How the listings' bucket hangs together with rows: originals, and the WebP at the URL that was handed out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from imgpipe_orchestration.listings.store import queue_of
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item
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
    )


def _make_again(services: Services, missing: Sequence[Promise]) -> int:
    ids = sorted({promise.row for promise in missing if not promise.key.startswith("originals/")})
    with transaction(services.engine) as connection:
        rows = connection.execute(_ITEMS, {"ids": ids})
        items = [Item(row.id, "" if row.user_id is None else str(row.user_id), row.day) for row in rows]
        services.claims.enqueue(connection, queue_of(services.settings), items, again=True)
    return len(items)  # with those that wait for it already


# A WebP at the root, an original below `originals/`; other folders are not ours to judge.
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
