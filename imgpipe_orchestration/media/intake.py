"""From `pending_images` to our queue: every new row is registered once, whoever inserted it.

The main API (or an operator's SQL) inserts rows; we may not change that table. So a mark remembers how far we have
read. A sensor asks only "is there an id past the mark?", one look at the primary key. Ids can become visible out of
order (a transaction that took its id early and committed late), so an intake reads again from where the mark stood
an hour ago; what is registered already is skipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import text

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import BadInput, ImgpipeError
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.media import pending, registering, store
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.pending import TIME_IS_READABLE, PendingImage
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.backlog import QueueCounts
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction

log = logger(__name__)

LOOK_BACK_MINUTES = 60
UNSEEN = 1000
"""Uploads that no intake has seen are counted up to this number."""


def first_new(services: Services) -> PendingImage | None:
    """The first pending image that no intake has seen, or None: what the sensor asks."""
    with transaction(services.engine) as connection:
        mark = registering.intake_mark(connection)
    with transaction(services.pending_engine) as connection:
        found = pending.in_state(connection, PendingStatus.PENDING, after=mark, limit=1)
    return found[0] if found else None


def with_unseen(services: Services, counts: Mapping[str, QueueCounts]) -> dict[str, QueueCounts]:
    """The counts of all queues, those of ours with the uploads past the mark among what waits: an intake is a run's
    work, so while none starts they are in no queue. Another database may hold them, and may be away."""
    try:
        with transaction(services.engine) as connection:
            mark = registering.intake_mark(connection)
        with transaction(services.pending_engine) as connection:
            unseen = connection.execute(_UNSEEN, {"mark": mark, "most": UNSEEN}).one()
    except ImgpipeError:
        return dict(counts)  # what is away is told by others
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
    """Register what is pending and not registered; returns how many images were new.

    Args:
        everything: from the first row on, for a reconciliation that trusts no mark.
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
    """Register a page; a row that we cannot keep fails alone, found by halves."""
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
        # Asked first: what waits is read again by every run of its first hour, and each try to insert it costs an id.
        known = registering.registered(connection, page)
        new = [image for image in page if image.id not in known]
        traces = registering.take_upload_traces(connection, [image.id for image in new])
        for image in new:
            trace = tracing.parse(traces.get(image.id)) or tracing.begin()
            media_id = registering.register(connection, image, str(trace))
            if media_id is not None:
                items.append(Item(media_id, tenant=str(image.user_id), partition=image.day, trace=str(trace)))
        registering.move_intake_mark(connection, page[-1].id)
        return services.claims.enqueue(connection, store.MEDIA, items)


_UNSEEN = text(f"""
    select count(*) as uploads, min(case when {TIME_IS_READABLE} then created_at end) as oldest,
        current_timestamp as now from (
        select created_at from pending_images where status = 'pending' and id > :mark order by id limit :most
    ) as unseen
""")
