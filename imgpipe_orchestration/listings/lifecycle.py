"""What the listings own: images with their originals and WebP."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Connection, RowMapping, text

from imgpipe_orchestration.lifecycle.kind import Aging, Exported, Kind, Objects
from imgpipe_orchestration.listings.store import QUEUE, item_of
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.deletions import DELETED, Deletion, Thing
from imgpipe_orchestration.storage.holdings import Holding, Promise, named_by, promised_by
from imgpipe_orchestration.storage.rows import transaction


def what(number: int) -> str:
    """The name of an image among the deletions."""
    return f"listings/{number}"


def find(
    connection: Connection, user: int | None, *, image: UUID | None = None, listing: UUID | None = None
) -> list[int]:
    """The rows of an image or of a listing that belong to `user` (None: to anybody); deleted ones too."""
    values = {"user": user, "image": image, "listing": listing}
    return list(connection.scalars(_FIND, values))


def names(services: Services, ids: Sequence[int]) -> dict[int, str]:
    """The public ids of some rows."""
    with transaction(services.engine) as connection:
        rows = connection.execute(
            text("select id, public_id from image_queue where id = any(:ids)"), {"ids": list(ids)}
        )
        return {row.id: str(row.public_id) for row in rows}


def _stop(services: Services, connection: Connection, ids: Sequence[int]) -> list[Thing]:
    rows = connection.execute(_ROWS, {"ids": sorted(ids)}).all()
    withdrawn = services.claims.withdraw(connection, QUEUE, [row.id for row in rows], DELETED, failed=True)
    return [
        Thing(
            what(row.id),
            row.id,
            row.user_id,
            [row.file_name, row.original_key, str(row.public_id)],
            [QUEUE.name] if row.id in withdrawn else [],
        )
        for row in rows
    ]


def _resume(services: Services, connection: Connection, deletion: Deletion) -> None:
    if deletion.queues:
        row = connection.execute(_DAY, {"id": deletion.item}).one()
        tenant = "" if row.user_id is None else str(row.user_id)
        services.claims.enqueue(connection, QUEUE, [Item(row.id, tenant, row.day)], again=True)


def _objects(connection: Connection, ids: Sequence[int]) -> dict[int, Objects]:
    rows = connection.execute(_ROWS, {"ids": sorted(ids)})
    return {row.id: Objects([row.original_key, row.file_name]) for row in rows}


def _erase(_: Services, connection: Connection, ids: Sequence[int]) -> None:
    verdicts.forget(connection, "listings", ids)
    deletions.forget_work(connection, ["listings"], ids)
    connection.execute(_FORGET_ANSWERS, {"ids": list(ids)})
    connection.execute(text("delete from image_queue where id = any(:ids)"), {"ids": list(ids)})


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


def _holding(services: Services) -> Holding:
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


_ROWS = text("""
    select id, user_id, public_id, file_name, original_key from image_queue where id = any(cast(:ids as bigint[]))
    order by id for update
""")

_FIND = text("""
    select id from image_queue where (public_id = :image or listing_id = :listing)
    and (cast(:user as bigint) is null or user_id = :user) order by id
""")

_DAY = text("select id, user_id, to_char(created_at, 'YYYY-MM-DD') as day from image_queue where id = :id")

# Answers are kept for a day. They have the names of files, which are made of the listing's title.
_FORGET_ANSWERS = text("""
    delete from kept_answers a using image_queue i where i.id = any(cast(:ids as bigint[]))
    and a.route = 'listings' and a.caller = coalesce(cast(i.user_id as text), '')
    and position(cast(i.public_id as text) in cast(a.answer as text)) > 0
""")

_OLD = text("""
    select id from live_image_queue where created_at <= now() - make_interval(secs => :days * 86400)
    order by id limit 500
""")

_EXPORT = text("""
    select i.*, d.trashed_at, d.who, d.why from image_queue i
    left join deletions d on d.kind = 'listings' and d.item = i.id
    where i.user_id = :user and i.id > :after and d.purging_at is null order by i.id limit :limit
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

_ITEMS = text("""
    select id, user_id, to_char(created_at, 'YYYY-MM-DD') as day from image_queue
    where id = any(cast(:ids as bigint[])) and status = 'processed'
""")

LISTINGS = Kind(
    name="listings",
    pipeline="listings",
    bucket=lambda services: services.listings_bucket,
    stop=_stop,
    objects=_objects,
    erase=_erase,
    resume=_resume,
    tables={"image_queue": "id"},
    queues=("listings",),
    live="live_image_queue",
    export=_EXPORT,
    exported=_exported,
    folder="listings",
    tag="listing-",
    expired=Aging(lambda settings: settings.listings_keep_days or None, _OLD),
    holding=_holding,
)
