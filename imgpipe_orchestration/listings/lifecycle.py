"""What the listings own: images with their originals and WebP. The images are judged."""

from uuid import UUID

from sqlalchemy import Connection, RowMapping, text

from imgpipe_orchestration.lifecycle.kind import Aging, Exported, Kind
from imgpipe_orchestration.listings import store
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.storage.holdings import Holding, named_by, promised_by
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services


def find(
    connection: Connection, user: int | None, *, image: UUID | None = None, listing: UUID | None = None
) -> dict[int, str]:
    """The rows of an image or of a listing that belong to `user` (None: to anybody), also deleted ones, with the public
    ids."""
    values = {"user": user, "image": image, "listing": listing}
    return {row.id: str(row.public_id) for row in connection.execute(_FIND, values)}


def _exported(_: Connection, row: RowMapping) -> Exported:
    record = {
        "image_id": str(row["public_id"]),
        "listing_id": str(row["listing_id"]) if row["listing_id"] else None,
        "listing_title": row["listing_title"],
        "original_name": row["original_name"],
        "file_name": row["file_name"],
        "state": row["status"],
        "uploaded_at": row["created_at"],
    }
    return Exported(record, row["original_name"], row["original_key"])


def _picture(services: Services, number: int) -> bytes:
    with transaction(services.engine) as connection:
        work = store.work(connection, number)
    return services.listings_bucket.get(work.original_key, size=work.bytes)


def _facts(connection: Connection, number: int) -> tuple[int | None, str]:
    return store.work(connection, number).user_id, ""


_ROWS = text("""
    select id, user_id, 'listings/' || id as what,
        array[file_name, original_key, cast(public_id as text)] as addresses, array[original_key, file_name] as keys,
        cast('{}' as text[]) as prefixes, array['listings/' || id] as bought, to_char(created_at, 'YYYY-MM-DD') as day
    from image_queue where id = any(cast(:ids as bigint[])) order by id
""")

_FIND = text("""
    select id, public_id from image_queue where (public_id = :image or listing_id = :listing)
    and (cast(:user as bigint) is null or user_id = :user) order by id
""")

# Answers are kept for a day. They have the names of files, which are made of the listing's title.
_FORGET_ANSWERS = text("""
    delete from kept_answers a using image_queue i where i.id = any(cast(:ids as bigint[]))
    and a.route = 'listings' and a.caller = coalesce(cast(i.user_id as text), '')
    and position(cast(i.public_id as text) in cast(a.answer as text)) > 0
""")

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

LISTINGS = Kind(
    name="listings",
    pipeline="listings",
    bucket=lambda services: services.listings_bucket,
    rows=_ROWS,
    tables={"image_queue": "id"},
    queues={store.QUEUE: "id"},
    judged={"listings": ("id", 0)},
    erased=lambda _, connection, rows: connection.execute(_FORGET_ANSWERS, {"ids": [row.id for row in rows]}),
    resumed=lambda _, __: None,
    ready="status <> 'failed'",
    live="live_image_queue",
    exported=_exported,
    folder="listings",
    tag="listing-",
    expired=Aging(lambda settings: settings.listings_keep_days or None, "created_at"),
    kept=lambda services: Holding(
        "listings",
        services.listings_bucket,
        ("",),
        named_by(services.engine, _NAMED),
        promised_by(services.engine, _PROMISED),
        sized=True,
        is_original=lambda promise: promise.key.startswith("originals/"),
    ),
    remake=store.QUEUE,
)

LISTED = Subject("listings", LISTINGS, "image_queue", _picture, _facts)
