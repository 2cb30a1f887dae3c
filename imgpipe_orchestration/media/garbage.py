"""How the media bucket's objects relate to rows: uploads, originals, variants."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import text

from imgpipe_orchestration.media import direct_uploads, pending, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.pending import PendingImage
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.garbage import Holding, Promise, promised_by
from imgpipe_orchestration.storage.rows import transaction

_TEMP = "temp_images/"


def holding(services: Services) -> Holding:
    """Temp files are in use until their URLs are replaced or their upload has failed for good, staged files until their
    upload is committed or expires, and originals and variants as long as their rows name them.

    A variant that is missing or has another size is made again from its original; an original cannot be.
    """
    return Holding(
        name="media",
        bucket=services.media_bucket,
        prefixes=(_TEMP, direct_uploads.STAGING, "bulk/", "library/"),
        named=lambda keys: _named(services, keys),
        promised=promised_by(services.engine, _PROMISED),
        sized=True,
        repair=lambda missing: _make_again(services, missing),
        is_original=lambda promise: promise.key.startswith("bulk/"),
    )


def _named(services: Services, keys: Sequence[str]) -> set[str]:
    temp = [key for key in keys if key.startswith(_TEMP)]
    staged = [key for key in keys if key.startswith(direct_uploads.STAGING)]
    rows: dict[str, PendingImage] = {}
    failed: set[int] = set()
    if temp:
        with transaction(services.pending_engine) as connection:
            rows = pending.by_paths(connection, [f"/{key}" for key in temp])
            failed = pending.failed(connection, [image.id for image in rows.values()])
    others = [key for key in keys if not key.startswith((_TEMP, direct_uploads.STAGING))]
    with transaction(services.engine) as connection:
        # The file of an upload that was cleaned up is still there where the object store was away at that moment.
        ended = failed - store.retriable(connection, failed)
        ended |= {image.id for image in rows.values() if image.status is PendingStatus.COMPLETE}
        named = {path[1:] for path, image in rows.items() if image.id not in ended}
        named |= direct_uploads.open_keys(connection, staged)
        return named | set(connection.scalars(_NAMED, {"keys": others}))


def _make_again(services: Services, missing: Sequence[Promise]) -> int:
    ids = sorted({promise.row for promise in missing})
    with transaction(services.engine) as connection:
        rows = connection.execute(_ITEMS, {"ids": ids})
        items = [Item(row.id, tenant=str(row.user_id), partition=row.day) for row in rows]
        services.claims.enqueue(connection, store.REMAKE_VARIANTS, items, again=True)
    return len(items)  # including those that were already enqueued


# Keys contain the image's id (`library/user_7/product/img/12-detail-0123456789ab.avif`, `bulk/2026-01-31/12.jpg`), so
# each takes a look-up by primary key, however many images there are. Keys of another form count as in use.
_NAMED = text(r"""
    with asked as (
        select key, cast(coalesce(substring(key from '^library/.*/([0-9]{1,18})-[^/]*$'),
            substring(key from '^bulk/[0-9-]+/([0-9]{1,18})[.][^/]*$')) as bigint) as id
        from unnest(cast(:keys as text[])) as key
    )
    select key from asked where id is null
    or exists (select from media_variants v where v.media_id = asked.id and v.object_key = asked.key)
    or exists (select from media_files f where f.id = asked.id and f.bulk_path = asked.key)
""")

# A page has whole images: all of an image's promises have the same `row`, so a page must not end between them.
_PROMISED = text("""
    with page as (
        select id, bulk_path, file_size from media_files f where id > :after and status = 'completed'
        and (bulk_path is not null or exists (select from media_variants v where v.media_id = f.id))
        order by id limit :limit / 20 + 1
    )
    select id, bulk_path, file_size from page where bulk_path is not null
    union all
    select page.id, v.object_key, v.bytes from page join media_variants v on v.media_id = page.id
    order by 1
""")

_ITEMS = text("""
    select id, user_id, cast(upload_day as text) as day from live_media
    where id = any(cast(:ids as bigint[])) and status = 'completed'
""")
