"""From `pending_images` to our queue: every new row is registered once, whoever inserted it.

The main API (or an operator's SQL) inserts rows, and we may not change that table. So a mark remembers the last id that
was read, and a sensor only asks whether there is an id past it, by the primary key. Ids may become visible out of
order, when a transaction takes its id early and commits late. So an intake starts from where the mark was an hour ago,
and skips what is already registered.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import BadInput, ImgpipeError
from imgpipe_orchestration.media import pending, store
from imgpipe_orchestration.media.model import PendingStatus, field_of
from imgpipe_orchestration.media.pending import TIME_IS_READABLE, PendingImage
from imgpipe_orchestration.storage.backlog import QueueCounts
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.texts import clean_name
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

LOOK_BACK_MINUTES = 60
UNSEEN = 1000
"""Uploads that no intake has read are counted up to this number."""


def due_days(services: Services, *, limit: int) -> list[str]:
    """Days of upload with something due: up to `limit` that have new images, and then one that only has images to make
    again. The latest comes first and the others from the oldest on, so today's uploads do not wait until the days of an
    outage or of a backfill are done.

    An upload that no intake has seen makes its day due. Work that belongs to no day (temp URLs to replace, analyses to
    heal) is done by any run; if no day is due, it makes today due.
    """
    claims = services.claims
    uploaded = set(claims.due_partitions(store.MEDIA))
    if new := first_new(services):
        uploaded.add(new.day)
    again = {day for queue in store.AGAIN for day in claims.due_partitions(queue, limit=1)} - uploaded
    oldest_first = sorted(uploaded)
    days = (oldest_first[-1:] + oldest_first[:-1])[:limit] + sorted(again)[:1]
    if not days and any(claims.due_partitions(queue, limit=1) for queue in store.OF_NO_DAY):
        return [datetime.now(UTC).date().isoformat()]
    return days


def first_new(services: Services) -> PendingImage | None:
    """The first pending image that no intake has read, for the sensor; None where there is none."""
    with transaction(services.engine) as connection:
        mark = intake_mark(connection)
    with transaction(services.pending_engine) as connection:
        waiting = pending.in_state(PendingStatus.PENDING)
        found = pending.find(connection, waiting, pending.t.c.id > mark, limit=1)
        last = mark if found else pending.last_id(connection)
    if last >= mark:
        return found[0] if found else None
    # The table was emptied, restored or replaced by another one, whose ids begin below the mark: they would seem read.
    with transaction(services.engine) as connection:
        connection.execute(text("delete from pending_intake where last_id > :id"), {"id": last})
    log.info("pending image ids begin below what was read", extra={"last_id": last, "read_to": mark})
    return first_new(services)


def queue_counts(services: Services) -> dict[str, QueueCounts]:
    """The counts of all queues, with the uploads past the mark added to those that wait in ours.

    A run does the intake, so while no run starts, uploads are in no queue. If their database is away they are left out.
    """
    counts = services.claims.counts()
    try:
        with transaction(services.engine) as connection:
            mark = intake_mark(connection)
        with transaction(services.pending_engine) as connection:
            unseen = connection.execute(_UNSEEN, {"mark": mark, "most": UNSEEN}).one()
    except ImgpipeError:
        return counts  # health checks report a database that is away
    if not unseen.uploads:
        return counts
    media = counts.get(store.MEDIA.name) or QueueCounts(store.MEDIA.name, 0, 0, 0, 0, 0, None, 0, None)
    oldest = media.oldest_waiting_seconds
    if unseen.oldest is not None:
        oldest = max(oldest or 0.0, (unseen.now - unseen.oldest).total_seconds())
    media = replace(media, waiting=media.waiting + unseen.uploads, oldest_waiting_seconds=oldest)
    return {**counts, media.queue: media}


def take_in(services: Services, *, everything: bool = False) -> int:
    """Register pending images that are not registered yet; returns how many.

    Args:
        everything: read all rows and ignore the mark, for a reconciliation.
    """
    after = 0
    if not everything:
        with transaction(services.engine) as connection:
            after = intake_mark(connection, minutes_ago=LOOK_BACK_MINUTES)
    pages = pending.pages(services, pending.in_state(PendingStatus.PENDING), after=after)
    return sum(_take_in(services, page) for page in pages)


def _take_in(services: Services, page: list[PendingImage]) -> int:
    """Register a page. A row that cannot be stored is found by halving the page, and fails alone."""
    try:
        return _register(services, page)
    except BadInput as error:
        if len(page) > 1:
            half = len(page) // 2
            return _take_in(services, page[:half]) + _take_in(services, page[half:])
        log.warning("pending image refused", extra={"pending_id": page[0].id, "error": error.public})
    with transaction(services.pending_engine) as connection:
        pending.mark(connection, [page[0].id], PendingStatus.FAILED)
    with transaction(services.engine) as connection:
        move_intake_mark(connection, page[0].id)
    return 0


def _register(services: Services, page: list[PendingImage]) -> int:
    items = []
    with transaction(services.engine) as connection:
        # Checked first: every run in the first hour reads a waiting row again, and a failed insert uses up an id.
        known = registered(connection, page)
        new = [image for image in page if image.id not in known]
        taken = connection.execute(_TAKE_TRACES, {"ids": [image.id for image in new]})
        traces = {row.pending_id: row.trace for row in taken}
        for image in new:
            trace = tracing.parse(traces.get(image.id)) or tracing.begin()
            media_id = register(services, connection, image, trace)
            if media_id is not None:
                items.append(Item(media_id, tenant=str(image.user_id), partition=image.day, trace=trace))
        move_intake_mark(connection, page[-1].id)
        return services.claims.enqueue(connection, store.MEDIA, items)


_TAKE_TRACES = text("delete from upload_traces where pending_id = any(:ids) returning pending_id, trace")
_UNSEEN = text(f"""
    select count(*) as uploads, min(case when {TIME_IS_READABLE} then created_at end) as oldest,
        current_timestamp as now from (
        select created_at from pending_images where status = 'pending' and id > :mark order by id limit :most
    ) as unseen
""")


# --- the rows --------------------------------------------------------------------------------------------------------


def registered(connection: Connection, images: Sequence[PendingImage]) -> set[int]:
    """The ids of the pending images that have a media file.

    Ids are reused when the table was emptied, restored or replaced by another database's. Then the media file with the
    same id and another path, perhaps of another user, loses the id: its upload is gone.
    """
    query = text("select main_api_id, image_path from media_files where main_api_id = any(:ids)")
    rows = connection.execute(query, {"ids": [image.id for image in images]})
    paths = {row.main_api_id: row.image_path for row in rows}
    reused = [image.id for image in images if paths.get(image.id, image.image_path) != image.image_path]
    if reused:
        log.warning("pending image ids came round again", extra={"count": len(reused), "pending_id": reused[0]})
        give_up = text("update media_files set main_api_id = -id where main_api_id = any(:ids)")
        connection.execute(give_up, {"ids": reused})
    return paths.keys() - set(reused)


def register(services: Services, connection: Connection, image: PendingImage, trace: str = "") -> int | None:
    """Create the media file of a pending image and its checklist. Returns its id; None if it was already registered."""
    field = field_of(image.image_path)
    values = {
        "main_api_id": image.id,
        "user_id": image.user_id,
        "data_type": field.data_type.value,
        "kind": field.kind,
        "image_path": image.image_path,
        "original_name": image.original_name and clean_name(image.original_name),  # others write these rows too
        "mime_type": image.mime_type,
        "uploaded": image.created_at,
        "upload_day": image.day,
        "trace": trace,
        "held": services.settings.moderation == "hold",  # nobody is shown it until it has a verdict
    }
    media_id: int | None = connection.scalar(_REGISTER, values)
    if media_id is not None:
        connection.execute(text("insert into processing_checklist (media_id) values (:id)"), {"id": media_id})
    return media_id


_REGISTER = text("""
    insert into media_files
        (main_api_id, user_id, data_type, kind, image_path, original_name, mime_type, created_at, upload_day, trace,
            held, private)
    values (:main_api_id, :user_id, :data_type, :kind, :image_path, :original_name, :mime_type,
        least(:uploaded, now()), :upload_day, :trace, :held,
        exists (select from media_uploads u where u.image_path = :image_path and u.private))
    on conflict (main_api_id) do nothing returning id
""")


def intake_mark(connection: Connection, *, minutes_ago: int = 0) -> int:
    """The highest pending image id that an intake had read (some minutes ago); 0 before the first."""
    query = text("""
        select coalesce(max(last_id), 0) from pending_intake where seen_at <= now() - make_interval(mins => :minutes)
    """)
    return int(connection.scalar(query, {"minutes": minutes_ago}) or 0)


def move_intake_mark(connection: Connection, last_id: int) -> None:
    """Move the mark to `last_id`; marks of the last day are kept for `minutes_ago`."""
    connection.execute(text("delete from pending_intake where seen_at < now() - interval '1 day'"))
    query = text("""
        insert into pending_intake (last_id)
        select :id where :id > coalesce((select max(last_id) from pending_intake), 0)
    """)
    connection.execute(query, {"id": last_id})
