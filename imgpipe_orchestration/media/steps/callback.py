"""update_callback: report to the main API that the image is done, with its analysis."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import Conflict, NotFound, PartnerRefused, UnreadableAnswer
from imgpipe_orchestration.imaging.formats import MIME_OF
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.media import pending, store
from imgpipe_orchestration.media.analyses import public_analysis
from imgpipe_orchestration.media.model import PendingStatus, Step, StepState
from imgpipe_orchestration.media.steps.retrieve import mendable
from imgpipe_orchestration.media.store import MediaFile, manifest_of
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Item
from imgpipe_orchestration.storage.queues import backoff
from imgpipe_orchestration.storage.rows import transaction


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
            values = {"id": media.id, "user_id": media.user_id, "kind": media.kind}
            replaced = connection.scalars(_REPLACE_OLDER, values)
            cdn.order(services, connection, [f"media-{old}" for old in replaced])
        analysed = store.checklist(connection, media.id)[Step.AI_VISUAL_ANALYSIS]
        store.step_ended(connection, claim, Step.UPDATE_CALLBACK, StepState.COMPLETED)
        services.claims.finish(connection, store.MEDIA, claim)
        tenant = str(media.user_id)
        # Again, for an image that is reported anew was replaced or given up before.
        services.claims.enqueue(connection, store.URLS, [Item(media.main_api_id, tenant)], again=True)
        if analysed is StepState.FAILED:
            item = Item(media.id, tenant)
            services.claims.enqueue(connection, store.HEALING, [item], delay=backoff(0), again=True)


_COMPLETED = text("""
    update media_files set status = 'completed', error = null, callback_acknowledged_at = now() where id = :id
""")
_REPLACE_OLDER = text("""
    update media_files set replaced_at = now() where user_id = :user_id and kind = :kind and id < :id
    and status = 'completed' and replaced_at is null returning id
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
        if _is_reported(services, media):
            return
        if refused.partner_status == 409:
            raise Conflict(f"The main API no longer wants image {media.main_api_id}: {refused.public}") from refused
        raise NotFound(f"The main API does not know image {media.main_api_id}.") from refused
    if not (isinstance(answer, dict) and answer.get("success") is True):
        raise UnreadableAnswer(
            f"The main API's answer does not acknowledge image {media.main_api_id}", detail=str(answer)[:500]
        )


def _is_reported(services: Services, media: MediaFile) -> bool:
    """Whether the upload is already processed as this image, because the answer to an earlier report got lost."""
    with transaction(services.pending_engine) as connection:
        image = pending.get(connection, media.main_api_id)
    return image.status in {PendingStatus.PROCESSED, PendingStatus.COMPLETE} and image.media_id == str(media.id)


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
