"""What the listings own: images with their originals and WebP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from sqlalchemy import Connection, text

from imgpipe_orchestration.lifecycle.kind import Exported, Kind, Objects
from imgpipe_orchestration.listings import garbage
from imgpipe_orchestration.listings.store import queue_of
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.deletions import DELETED, Deletion, Thing
from imgpipe_orchestration.storage.rows import transaction

_PAGE = 200


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
    queue = queue_of(services.settings)
    withdrawn = services.claims.withdraw(connection, queue, [row.id for row in rows], DELETED, failed=True)
    secret = services.settings.secret_key
    return [
        Thing(
            what(row.id),
            row.id,
            row.user_id,
            [deletions.digest(secret, key) for key in (row.file_name, row.original_key, str(row.public_id))],
            [queue.name] if row.id in withdrawn else [],
        )
        for row in rows
    ]


def _resume(services: Services, connection: Connection, deletion: Deletion) -> None:
    if deletion.queues:
        row = connection.execute(_DAY, {"id": deletion.item}).one()
        tenant = "" if row.user_id is None else str(row.user_id)
        services.claims.enqueue(connection, queue_of(services.settings), [Item(row.id, tenant, row.day)], again=True)


def _objects(services: Services, ids: Sequence[int]) -> dict[int, Objects]:
    with transaction(services.engine) as connection:
        rows = connection.execute(_ROWS, {"ids": sorted(ids)}).all()
    return {row.id: Objects([row.original_key, row.file_name]) for row in rows}


def _erase(services: Services, connection: Connection, ids: Sequence[int]) -> None:
    deletions.forget_work(connection, ["listings"], ids)
    connection.execute(_FORGET_ANSWERS, {"ids": list(ids)})
    connection.execute(text("delete from image_queue where id = any(:ids)"), {"ids": list(ids)})


def _of_user(connection: Connection, user_id: int, limit: int) -> list[int]:
    query = text("select id from live_image_queue where user_id = :user order by id limit :limit")
    return list(connection.scalars(query, {"user": user_id, "limit": limit}))


def _expired(services: Services, connection: Connection) -> list[int]:
    days = services.settings.listings_keep_days
    return list(connection.scalars(_OLD, {"days": days})) if days else []


def _exported(services: Services, user_id: int) -> Iterator[Exported]:
    after = 0
    while True:
        with transaction(services.engine) as connection:
            rows = connection.execute(_EXPORT, {"user": user_id, "after": after, "limit": _PAGE}).all()
        for row in rows:
            record = {
                "image_id": str(row.public_id),
                "listing_id": str(row.listing_id) if row.listing_id else None,
                "listing_title": row.listing_title,
                "original_name": row.original_name,
                "file_name": row.file_name,
                "state": "trashed" if row.trashed_at else row.status,
                "uploaded_at": row.created_at,
                "deleted": {"at": row.trashed_at, "by": row.who, "why": row.why} if row.trashed_at else None,
            }
            yield Exported(record, row.original_name, row.original_key)
        if len(rows) < _PAGE:
            return
        after = rows[-1].id


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
    of_user=_of_user,
    exported=_exported,
    folder="listings",
    expired=_expired,
    holding=garbage.holding,
)

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
