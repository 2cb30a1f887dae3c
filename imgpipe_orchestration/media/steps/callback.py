"""update_callback: report to the main API that the image is done, with its analysis. And replace_urls, once it is known
there: replace temp URLs in the profiles by smart URLs, complete the upload and delete its temp file. Or, if the image
was given up, mark the upload as failed."""

from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import (
    BadImage,
    Conflict,
    NotFound,
    PartnerRefused,
    PartnerUnavailable,
    TooLarge,
    UnreadableAnswer,
)
from imgpipe_orchestration.imaging.formats import MIME_OF
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.media import model, pending, store, uploads
from imgpipe_orchestration.media.analyses import public_analysis
from imgpipe_orchestration.media.model import MediaStatus, PendingStatus, Step, StepState
from imgpipe_orchestration.media.pending import PendingImage
from imgpipe_orchestration.media.steps.retrieve import mendable
from imgpipe_orchestration.media.store import MediaFile, manifest_of
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.storage.claims import Claim, Item
from imgpipe_orchestration.storage.queues import backoff
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services


def callback(services: Services, claim: Claim) -> None:
    """Report the image, finish its item and enqueue the replacement of its temp URLs.

    Raises:
        Conflict, NotFound: the image was cleaned up, processed by another worker or removed.
        PartnerUnavailable, RateLimited: worth another try.
    """
    report(services, claim.item_id)
    with services.claims.fenced(claim) as connection:
        media = store.media_file(connection, claim.item_id)
        connection.execute(_COMPLETED, {"id": media.id})
        if media.kind in store.ALONE:
            replaced = connection.scalars(_REPLACE_OLDER, {"user_id": media.user_id, "kind": media.kind})
            cdn.order(services, connection, [f"media-{old}" for old in replaced])
        analysed = store.checklist(connection, media.id)[Step.AI_VISUAL_ANALYSIS]
        store.step_ended(connection, claim, Step.UPDATE_CALLBACK, StepState.COMPLETED)
        services.claims.finish(connection, store.MEDIA, claim)
        tenant = str(media.user_id)
        # Again, for an image that is reported anew was replaced or given up before.
        services.claims.enqueue(connection, store.URLS, [Item(media.main_api_id, tenant)], again=True)
        if analysed is StepState.FAILED:
            item = Item(media.id, tenant)
            # Not within this run, which has just tried as often as a run does.
            services.claims.enqueue(connection, store.HEALING, [item], delay=backoff(3), again=True)


_COMPLETED = text("""
    update media_files set status = 'completed', error = null, callback_acknowledged_at = now() where id = :id
""")
# Also this image itself, where a later one was ready first.
_REPLACE_OLDER = text("""
    update media_files set replaced_at = now() where user_id = :user_id and kind = :kind
    and status = 'completed' and replaced_at is null and id < (select max(n.id) from live_media n
        where n.user_id = :user_id and n.kind = :kind and n.status = 'completed')
    returning id
""")


def report(services: Services, media_id: int) -> None:
    """Send the rich body. It may be repeated, because the same content has the same Idempotency-Key.

    Raises:
        Conflict, NotFound, PartnerRefused: no further try would help.
        PartnerUnavailable, RateLimited, UnreadableAnswer: worth another try. An answer without `"success": true` is no
            acknowledgement, whatever its status.
    """
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
        body = payload(connection, media, services.settings.media_backend_url)
    try:
        answer = services.main_api.complete(media.main_api_id, body)
    except PartnerRefused as refused:
        if refused.partner_status not in {404, 409, 410}:
            raise mendable(refused) from refused
        with transaction(services.pending_engine) as connection:
            image = pending.get(connection, media.main_api_id)
        processed = image.status in {PendingStatus.PROCESSED, PendingStatus.COMPLETE}
        if processed and image.media_id == str(media.id):  # the answer to an earlier report got lost
            return
        if refused.partner_status == 409:
            raise Conflict(f"The main API no longer wants image {media.main_api_id}: {refused.public}") from refused
        raise NotFound(f"The main API does not know image {media.main_api_id}.") from refused
    if not (isinstance(answer, dict) and answer.get("success") is True):
        raise UnreadableAnswer(
            f"The main API's answer does not acknowledge image {media.main_api_id}", detail=str(answer)[:500]
        )


def payload(connection: Connection, media: MediaFile, base: str) -> dict[str, Any]:
    """The rich body of `POST /api/media/complete/{id}`; `base` is the beginning of the image's URL."""
    made = {variant.format for variant in manifest_of(connection, media.id)}
    analysis = store.analysis(connection, media.id) or {}
    verdict = verdicts.shown(connection, "media", media.id)
    return {
        "media_id": str(media.id),
        "permanent_url": f"{base}/serve/{media.id}",
        "processing_complete": True,
        "ai_enhanced": analysis.get("style_classification") is not None,
        "formats_available": [name for name in MIME_OF if name in made],
        **({"private": True} if media.private else {}),
        **({"moderation": verdict} if verdict else {}),
        "ai_analysis": public_analysis(analysis, background_removed=bool(media.background_removed)),
    }


# --- replace_urls ----------------------------------------------------------------------------------------------------


COLUMNS = (
    ("user_profiles", "profile_image_path"),
    ("user_profiles", "header_image_path"),
    ("artist_profiles", "logo_path"),
    ("promoter_profiles", "logo_path"),
    ("site_media", "media_path"),
    ("product_media", "media_path"),
    ("event_media", "media_path"),
)
"""Columns that contain temp URLs, from the specification's replacement script."""
_REPLACE = [
    text(f"update {table} set {column} = :new, updated_at = now() where {column} = :old") for table, column in COLUMNS
]


def put_in_place(connection: Connection, old: str, new: str) -> int:
    """Show one URL instead of another wherever that is shown; returns in how many places."""
    return sum(connection.execute(statement, {"old": old, "new": new}).rowcount for statement in _REPLACE)


def replace_urls(services: Services, claim: Claim) -> dict[str, float]:
    """Finish one upload, which is processed or failed. May be repeated. Returns figures for the run's totals.

    Raises:
        BackendUnavailable: a database or the object store is away.
        PartnerUnavailable: the main API has not stored our report yet (from the second time on it is sent again), or
            cannot be told of a failure.
        NotFound: it no longer knows the image.
        Conflict: the upload is marked as processed but has no media id; it stays as it is.
    """
    try:
        with transaction(services.pending_engine) as connection:
            image = pending.get(connection, claim.item_id)
    except NotFound:
        with services.claims.fenced(claim) as connection:
            media = store.media_of_pending(connection, claim.item_id)
            if media is None or media.status is not MediaStatus.FAILED:
                raise
            services.claims.finish(connection, store.URLS, claim)  # given up, and nobody is left to be told
        return {}
    if image.status in {PendingStatus.PENDING, PendingStatus.FAILED}:
        return _not_processed(services, claim, image)
    if image.media_id is None:
        raise Conflict(f"Image {image.id} is {image.status} and its permanent_url names no media id.")
    url = model.smart_url(services.settings.smart_media_base_url, image.media_id)
    with services.claims.fenced(claim) as connection:
        changed = put_in_place(connection, image.image_path, url)
    # Mark the row before the file is deleted: a crash in between leaves an unneeded file, and never a URL without one.
    with transaction(services.pending_engine) as connection:
        pending.mark(connection, [image.id], PendingStatus.COMPLETE, pending.t.c.status != PendingStatus.FAILED.value)
    uploads.remove_temp(services, image.image_path)
    with services.claims.fenced(claim) as connection:
        services.claims.finish(connection, store.URLS, claim)
    return {"places_changed": changed}


def _not_processed(services: Services, claim: Claim, image: PendingImage) -> dict[str, float]:
    """Mark the upload of an image that was given up as failed, and report that to a foreign main API, as the
    specification asks. Nothing is done about an upload that was cleaned up, or whose image was requeued."""
    with pending.both(services) as (connection, where):
        media = store.media_of_pending(connection, image.id, lock=True)  # or it could be requeued in between
        status = media.status if media else None
        if status is MediaStatus.FAILED:
            pending.mark(where, [image.id], PendingStatus.FAILED, pending.in_state(PendingStatus.PENDING))
        elif image.status is PendingStatus.FAILED or status not in {MediaStatus.COMPLETED, None}:
            services.claims.finish(connection, store.URLS, claim)
            return {}
    if media is None or status is not MediaStatus.FAILED:
        if media is not None and claim.failures:
            report(services, media.id)  # once more, as a main API may lose what it acknowledged
        raise PartnerUnavailable(f"The main API acknowledged image {image.id} and has not stored it yet")
    # A clean-up deletes the upload, so only for a bad image.
    bad = services.claims.find(store.MEDIA, media.id).error_code in {BadImage.code, TooLarge.code}
    figures = _told_of_failure(services, image.id) if bad and services.foreign_main_api else {}
    with services.claims.fenced(claim) as connection:
        services.claims.finish(connection, store.URLS, claim)
    return figures


def _told_of_failure(services: Services, pending_id: int) -> dict[str, float]:
    try:
        services.main_api.cleanup(pending_id)
    except PartnerRefused as refused:
        # It does not know the image, or has already settled it, so there is nothing to report.
        if refused.partner_status not in {404, 409, 410}:
            raise mendable(refused) from refused
    return {"failures_told": 1}
