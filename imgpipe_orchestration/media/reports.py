"""Reports to the main API about uploads, done or failed, from our workers and any others that follow the contract.

The item in our queue is locked before the row of `pending_images`, in the same order as in a run. If they are in two
databases, neither could detect a deadlock.
"""

from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import BadInput, Conflict
from imgpipe_orchestration.media import model, pending, store, uploads
from imgpipe_orchestration.media.analyses import keep_reported
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.media.pending import PendingImage
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.deletions import Deleted, is_deleted
from imgpipe_orchestration.wiring.services import Services


def complete(services: Services, image_id: int, body: dict[str, Any]) -> PendingImage:
    """Mark an upload as processed with the media id of a short or rich body; the same report may be repeated.

    Raises:
        NotFound: no such upload.
        Deleted: its image was deleted.
        BadInput: the body has no media id, or says that the processing is not complete.
        Conflict: the upload was cleaned up, or another media id was reported before.
    """
    if body.get("processing_complete") is False:
        told = "processing_complete is false: report the image once it is processed, or as failed by a cleanup."
        raise BadInput(told, field="processing_complete")
    named = body.get("media_id")
    if named is None and isinstance(body.get("permanent_url"), str):
        named = model.media_id_in(body["permanent_url"])
    media_id = str(named) if isinstance(named, str | int) and not isinstance(named, bool) else ""
    if not model.is_media_id(media_id):
        rule = "It has 1 to 64 letters, digits, - and _, at least one digit, and begins with a letter or digit."
        told = f"Send the media id as `media_id`, or a `permanent_url` that ends in it. {rule}"
        raise BadInput(told, field="media_id")
    with pending.both(services) as (connection, where):
        ours = _ours(connection, image_id)
        theirs = ours is None or str(ours.id) != media_id
        if ours is not None and theirs:
            _drop(services, connection, ours.id, f"Processed by another worker as media {media_id}.")
        image = pending.get(where, image_id, lock=True)
        if image.status is PendingStatus.FAILED:
            raise Conflict(f"Image {image_id} was marked as failed; upload it again.")
        if image.status is PendingStatus.PENDING or image.media_id is None:
            pending.mark(where, [image_id], PendingStatus.PROCESSED, permanent_url=media_id, thumbnail_url=media_id)
        elif image.media_id != media_id:
            raise Conflict(f"Image {image_id} is already processed as media {image.media_id}.")
        if theirs:
            keep_reported(connection, image_id, media_id, body.get("ai_analysis"))
        if image.status is not PendingStatus.COMPLETE or image.media_id is None:
            items = [Item(image_id, tenant=str(image.user_id))]
            # Restarted if there was no id, without which the replacement had failed.
            services.claims.enqueue(connection, store.URLS, items, again=image.media_id is None)
        return pending.get(where, image_id)


def clean_up(services: Services, image_id: int) -> None:
    """Mark an upload as failed and delete its temp file.

    Raises:
        NotFound: no such upload.
        Deleted: its image was deleted.
        Conflict: it has been processed.
    """
    with pending.both(services) as (connection, where):
        ours = _ours(connection, image_id)
        if ours is not None:
            _drop(services, connection, ours.id, "Cleaned up by another worker.")
        image = pending.get(where, image_id, lock=True)
        if image.status in {PendingStatus.PROCESSED, PendingStatus.COMPLETE}:
            raise Conflict(f"Image {image_id} is {image.status}; there is nothing to clean up.")
        pending.mark(where, [image_id], PendingStatus.FAILED)
    uploads.remove_temp(services, image.image_path)


def _ours(connection: Connection, image_id: int) -> MediaFile | None:
    ours = store.media_of_pending(connection, image_id)
    if ours is not None and is_deleted(connection, f"media/{ours.id}"):
        raise Deleted(f"Image {image_id} was deleted.")
    return ours


def _drop(services: Services, connection: Connection, media_id: int, reason: str) -> None:
    """End our own work on an image; one that has already failed keeps its reason."""
    services.claims.withdraw(connection, store.MEDIA, [media_id], reason)
    query = text("""
        update media_files set status = 'failed', error = :reason
        where id = :id and status in ('downloading', 'processing')
    """)
    connection.execute(query, {"id": media_id, "reason": reason})
