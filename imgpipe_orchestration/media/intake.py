"""From `pending_images` to our queue: every new row is registered once, whoever inserted it.

The main API (or an operator's SQL) inserts rows, and we may not change that table. So a mark remembers the last id that
was read, and a sensor only asks whether there is an id past it, by the primary key. Ids may become visible out of
order, when a transaction takes its id early and commits late. So an intake starts from where the mark was an hour ago,
and skips what is already registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import text

from imgpipe_orchestration.errors import BadInput, ImgpipeError
from imgpipe_orchestration.media import pending, registering, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.pending import TIME_IS_READABLE, PendingImage
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.backlog import QueueCounts
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

LOOK_BACK_MINUTES = 60
UNSEEN = 1000
"""Uploads that no intake has read are counted up to this number."""


def first_new(services: Services) -> PendingImage | None:
    """The first pending image that no intake has read, for the sensor; None where there is none."""
    with transaction(services.engine) as connection:
        mark = registering.intake_mark(connection)
    with transaction(services.pending_engine) as connection:
        found = pending.in_state(connection, PendingStatus.PENDING, after=mark, limit=1)
        last = mark if found else pending.last_id(connection)
    if last >= mark:
        return found[0] if found else None
    # The table was emptied, restored or replaced by another one, whose ids begin below the mark.
    with transaction(services.engine) as connection:
        registering.lower_intake_mark(connection, last)
    log.info("pending image ids begin below what was read", extra={"last_id": last, "read_to": mark})
    return first_new(services)


def with_unseen(services: Services, counts: Mapping[str, QueueCounts]) -> dict[str, QueueCounts]:
    """The counts of all queues, with the uploads past the mark added to those that wait in ours.

    A run does the intake, so while no run starts, uploads are in no queue. If their database is away they are left out.
    """
    try:
        with transaction(services.engine) as connection:
            mark = registering.intake_mark(connection)
        with transaction(services.pending_engine) as connection:
            unseen = connection.execute(_UNSEEN, {"mark": mark, "most": UNSEEN}).one()
    except ImgpipeError:
        return dict(counts)  # health checks report a database that is away
    if not unseen.uploads:
        return dict(counts)
    media = counts.get(store.MEDIA.name) or QueueCounts(store.MEDIA.name, 0, 0, 0, 0, 0, None, 0, None)
    oldest, startable = media.oldest_waiting_seconds, media.startable_seconds
    if unseen.oldest is not None:
        age = (unseen.now - unseen.oldest).total_seconds()
        oldest, startable = max(oldest or 0.0, age), max(startable or 0.0, age)
    waiting = media.waiting + unseen.uploads
    media = replace(media, waiting=waiting, oldest_waiting_seconds=oldest, startable_seconds=startable)
    return {**counts, media.queue: media}


def take_in(services: Services, *, everything: bool = False) -> int:
    """Register pending images that are not registered yet; returns how many.

    Args:
        everything: read all rows and ignore the mark, for a reconciliation.
    """
    if everything:
        with transaction(services.pending_engine) as connection:
            last = pending.last_id(connection)
        with transaction(services.engine) as connection:
            registering.lower_intake_mark(connection, last)
        after = 0
    else:
        with transaction(services.engine) as connection:
            after = registering.intake_mark(connection, minutes_ago=LOOK_BACK_MINUTES)
    return sum(_take_in(services, page) for page in pending.pages(services, PendingStatus.PENDING, after=after))


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
        registering.move_intake_mark(connection, page[0].id)
    return 0


def _register(services: Services, page: list[PendingImage]) -> int:
    items = []
    with transaction(services.engine) as connection:
        # Checked first: every run in the first hour reads a waiting row again, and a failed insert uses up an id.
        known = registering.registered(connection, page)
        new = [image for image in page if image.id not in known]
        traces = registering.take_upload_traces(connection, [image.id for image in new])
        for image in new:
            trace = tracing.parse(traces.get(image.id)) or tracing.begin()
            media_id = registering.register(connection, image, trace, held=services.settings.moderation == "hold")
            if media_id is not None:
                items.append(Item(media_id, tenant=str(image.user_id), partition=image.day, trace=trace))
        registering.move_intake_mark(connection, page[-1].id)
        return services.claims.enqueue(connection, store.MEDIA, items)


_UNSEEN = text(f"""
    select count(*) as uploads, min(case when {TIME_IS_READABLE} then created_at end) as oldest,
        current_timestamp as now from (
        select created_at from pending_images where status = 'pending' and id > :mark order by id limit :most
    ) as unseen
""")
