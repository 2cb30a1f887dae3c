"""The rows of `image_queue`, and when they are worked on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.listings.model import JOB_ID, Status
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.backlog import HELD_UP_LIMIT, HeldUp
from imgpipe_orchestration.storage.claims import Claims, Item, Queue, State
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.wiring.services import Services

if TYPE_CHECKING:
    from imgpipe_orchestration.listings.steps import File


def _follow(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """Copy state, error and failures of items to their rows. DONE is written by `rendered`, in the same transaction."""
    if state is State.DONE:
        return
    status = Status.FAILED if state is State.FAILED else Status.PENDING if error is None else Status.RETRY
    connection.execute(_FOLLOW, {"ids": list(ids), "status": status.value, "error": error})


QUEUE = Queue("listings", mirror=_follow)


@dataclass(frozen=True, slots=True)
class NewImage:
    """An accepted original: what its header says, upright width and height in pixels, and where its bytes are."""

    public_id: UUID
    listing_id: UUID
    user_id: int | None
    listing_title: str
    file_name: str
    original_name: str
    original_key: str
    content_type: str
    bytes: int
    width: int
    height: int


def add(connection: Connection, images: Sequence[NewImage], *, held: bool) -> list[Item]:
    """Rows for `images`; returns their queue items, which the caller enqueues in the same transaction. That of an image
    whose file name is taken is missing."""
    columns = {name: [getattr(image, name) for image in images] for name in NewImage.__slots__}
    rows = connection.execute(_ADD, {**columns, "max_retries": QUEUE.max_attempts, "held": held})
    return [item_of(row, row.day) for row in rows]


def item_of(row: Row[Any], day: str) -> Item:
    """The queue's item of a row of `image_queue` (`id`, `user_id`) that was uploaded on `day` (YYYY-MM-DD)."""
    return Item(row.id, tenant="" if row.user_id is None else str(row.user_id), partition=day)


def again(connection: Connection, claims: Claims, day: str) -> int:
    """The finished images of a day of upload wait once more; how many.

    Their rows stay `processed`, and their WebP is served, until the new one is there.
    """
    rows = connection.execute(_FINISHED, {"day": day})
    items = [item_of(row, day) for row in rows]
    return claims.enqueue(connection, QUEUE, items, again=True)


def work(connection: Connection, image_id: int) -> Row[Any]:
    """What a worker needs of a row: `file_name`, `user_id`, the original's `original_key` and `bytes` (its size).

    Raises:
        NotFound: the row is gone.
    """
    statement = text("select file_name, user_id, original_key, bytes from live_image_queue where id = :id")
    row = connection.execute(statement, {"id": image_id}).one_or_none()
    if row is None:
        raise NotFound(f"There is no image {image_id}.")
    return row


def rendered(connection: Connection, image_id: int, file: File) -> bool:
    """The WebP is stored; returns whether another one was served before. Call it within the claim's fence."""
    values = {"sha256": hashlib.sha256(file.data).hexdigest(), "size": len(file.data)}
    of_picture = {"width": file.width, "height": file.height, "frames": file.frames}
    return bool(connection.scalar(_RENDERED, {"id": image_id, **values, **of_picture}))


def served(connection: Connection, name: str) -> Row[Any] | None:
    """What serving needs of the image of a file name; None where it was never handed out. `webp_sha256` and
    `webp_bytes` are set once the WebP is stored."""
    return connection.execute(_SERVED, {"name": name}).one_or_none()


def latest(connection: Connection, *, before: int | None, limit: int) -> Sequence[Row[Any]]:
    """The newest rows first, with their items' `error_code`; `before` is the last id of the previous page."""
    older = "where i.id < :before" if before is not None else ""
    query = text(f"""
        select i.*, w.error_code from live_image_queue i
        left join work_items w on w.queue = 'listings' and w.item_id = i.id {older} order by i.id desc limit :limit
    """)
    return connection.execute(query, {"before": before, "limit": limit}).all()


def counts(connection: Connection) -> dict[str, int]:
    """How many images are in each state."""
    found = {row.status: row.n for row in connection.execute(_COUNTS)}
    return {status.value: int(found.get(status.value, 0)) for status in Status}


def held_up(connection: Connection) -> list[HeldUp]:
    """The images that wait because the job is stopped, which their items do not say."""
    values = {"job": JOB_ID, "limit": HELD_UP_LIMIT}
    why = f"The job {JOB_ID} is stopped; POST /api/jobs or the page of listings starts it"
    return [HeldUp("listings", why, row.n, None) for row in connection.execute(_HELD_UP, values)]


def startable_at(job: Row[Any]) -> datetime | None:
    """When a run may begin if something is due then; None for a stopped job."""
    if not job.enabled:
        return None
    never = job.last_started_at is None
    moment: datetime = job.created_at if never else job.last_started_at + job_definitions.parse_interval(job.interval)
    return moment


def due(services: Services) -> list[str] | str:
    """The latest day of upload that has something due, or why no run is wanted now; index look-ups only.

    Raises:
        BackendUnavailable: the database is away.
    """
    with transaction(services.engine) as connection:
        job, now = job_definitions.find(connection, JOB_ID), time_of(connection)
    if job is None or (startable := startable_at(job)) is None:
        return "the job is stopped; POST /api/jobs starts it again"
    days = services.claims.due_partitions(QUEUE)
    interval = job_definitions.parse_interval(job.interval)
    if days and now < startable <= now + interval:  # later than that, the clock was set back
        return f"the last run began less than {job.interval} ago"
    return days[-1:]


_FOLLOW = text("""
    update image_queue i set status = :status, error = :error, updated_at = now(), retries = w.failures
    from work_items w where w.queue = 'listings' and w.item_id = i.id and i.id = any(cast(:ids as bigint[]))
""")

_ADD = text("""
    insert into image_queue (max_retries, held, public_id, listing_id, user_id, listing_title, file_name, original_name,
        original_key, content_type, bytes, width, height)
    select cast(:max_retries as integer), cast(:held as boolean), n.*
    from unnest(cast(:public_id as uuid[]), cast(:listing_id as uuid[]),
        cast(:user_id as bigint[]), cast(:listing_title as text[]), cast(:file_name as text[]),
        cast(:original_name as text[]), cast(:original_key as text[]), cast(:content_type as text[]),
        cast(:bytes as integer[]), cast(:width as integer[]), cast(:height as integer[])) as n
    on conflict (file_name) do nothing
    returning id, user_id, to_char(created_at, 'YYYY-MM-DD') as day
""")

_RENDERED = text("""
    update image_queue i set status = 'processed', error = null, webp_sha256 = :sha256, webp_bytes = :size,
        webp_width = :width, webp_height = :height, webp_frames = :frames, processed_at = now(), updated_at = now()
    from image_queue before where i.id = :id and before.id = i.id returning before.webp_sha256 <> :sha256
""")

_SERVED = text("""
    select id, file_name, status, error, original_key, content_type, bytes, width, height, webp_sha256, webp_bytes,
        held
    from live_image_queue where file_name = :name
""")

_COUNTS = text("select status, count(*) as n from live_image_queue group by status")

_HELD_UP = text("""
    select count(*) as n from (
        select from live_image_queue where status in ('pending', 'retry') limit :limit
    ) open where exists (select from job_definitions where id = :job and not enabled) having count(*) > 0
""")

_FINISHED = text("""
    select id, user_id from live_image_queue where status = 'processed'
    and created_at >= cast(:day as date) and created_at < cast(:day as date) + 1 order by id
""")
