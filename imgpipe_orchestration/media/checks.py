"""Faults that no single step would notice, for the asset checks and the reconciliation."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import text

from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.media import pending, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

AUDITED_DAYS = 7
"""How many days back the audits look; older images were checked then."""
SAMPLE = 5000
"""Objects checked by one audit, about a millisecond each: as many as some hundred photos have."""
LATE_MINUTES = 60


def incomplete(services: Services) -> list[int]:
    """Finished media that lack a size, or a format that every browser shows."""
    query = text("""
        select f.id from live_media f
        where f.status = 'completed' and f.upload_day >= current_date - :days and (
            select count(distinct v.size) from media_variants v
            where v.media_id = f.id and v.background = 'original' and v.format in ('jpeg', 'png')) < :sizes
        order by f.id limit 1000
    """)
    with transaction(services.engine) as connection:
        return list(connection.scalars(query, {"days": AUDITED_DAYS, "sizes": len(MEDIA.sizes)}))


def missing_objects(services: Services) -> tuple[int, list[str]]:
    """How many originals and variants were checked (a random sample if there are many), and the missing keys."""
    query = text("""
        with recent as (
            select id, bulk_path from live_media where status = 'completed' and upload_day >= current_date - :days
        )
        select object_key from (
            select bulk_path as object_key from recent
            union select v.object_key from media_variants v join recent on recent.id = v.media_id
        ) named order by random() limit :sample
    """)
    with transaction(services.engine) as connection:
        keys = list(connection.scalars(query, {"days": AUDITED_DAYS, "sample": SAMPLE}))
    with ThreadPoolExecutor(8, thread_name_prefix="audit") as pool:
        heads = list(pool.map(services.media_bucket.head, keys))
    return len(keys), [key for key, head in zip(keys, heads, strict=True) if head is None]


UNACKNOWLEDGED = text("""
    select c.media_id from processing_checklist c join live_media f on f.id = c.media_id
    where c.resize_optimize = 'completed' and (c.update_callback = 'failed' or c.update_callback = 'pending' and (
        f.status = 'completed'
        or f.status = 'processing' and c.updated_at < now() - make_interval(mins => :minutes)))
    order by c.media_id limit 1000
""")


def unacknowledged(services: Services) -> list[int]:
    """Unacknowledged media that are completed, failed at their callback, or have had their variants for an hour."""
    with transaction(services.engine) as connection:
        return list(connection.scalars(UNACKNOWLEDGED, {"minutes": LATE_MINUTES}))


def heal_again(services: Services) -> int:
    """Enqueue finished images whose analysis failed for another round of tries; returns how many."""
    query = text("""
        select f.id, f.user_id from live_media f join processing_checklist c on c.media_id = f.id
        where f.status = 'completed' and f.upload_day >= current_date - :days and c.ai_visual_analysis = 'failed'
    """)
    with transaction(services.engine) as connection:
        items = [Item(row.id, tenant=str(row.user_id)) for row in connection.execute(query, {"days": AUDITED_DAYS})]
        return services.claims.enqueue(connection, store.HEALING, items, again=True)


def reopen(services: Services) -> int:
    """Enqueue pending uploads whose images are finished or failed: somebody set them back to `pending`, or the main API
    lost what it acknowledged. Returns how many."""
    added = 0
    for page in pending.pages(services, pending.in_state(PendingStatus.PENDING)):
        with transaction(services.engine) as connection:
            rows = connection.execute(_ENDED, {"ids": [image.id for image in page]}).all()
            ids = {"ids": [row.id for row in rows]}
            connection.execute(store.RESTART, ids)
            connection.execute(_REPORT_AGAIN, ids)
            items = [Item(row.id, str(row.user_id), row.upload_day.isoformat()) for row in rows]
            added += services.claims.enqueue(connection, store.MEDIA, items, again=True)
    return added


_ENDED = text("""
    select id, user_id, upload_day from live_media
    where main_api_id = any(:ids) and (status = 'completed' or status = 'failed' and not exists (
        select from work_items w  -- which is about to mark the upload as failed
        where w.queue = 'media_urls' and w.item_id = main_api_id and w.state in ('waiting', 'claimed')))
    order by id
""")
_REPORT_AGAIN = text("update processing_checklist set update_callback = 'pending' where media_id = any(:ids)")


def replace_again(services: Services) -> int:
    """Enqueue processed uploads whose temp URLs are not about to be replaced; returns how many."""
    added = 0
    for page in pending.pages(services, pending.in_state(PendingStatus.PROCESSED)):
        items = [Item(image.id, tenant=str(image.user_id)) for image in page]
        with transaction(services.engine) as connection:
            added += services.claims.enqueue(connection, store.URLS, items, again=True)
    return added
