"""update_callback: tell the main API that the image is done, with everything that is known about it."""

from __future__ import annotations

from typing import Any

from imgpipe_orchestration.errors import Conflict, NotFound, PartnerRefused
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.model import Step, StepState
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Item, backoff
from imgpipe_orchestration.storage.rows import transaction

_FORMATS = ("avif", "webp", "jpeg", "png")


def callback(backends: Services, claim: Claim) -> None:
    """Report and finish the item; its temp URLs are then to be replaced.

    Raises:
        Conflict, NotFound: the image was cleaned up, finished by somebody else or removed: give it up.
        PartnerUnavailable, RateLimited: worth another try.
    """
    report(backends, claim.item_id)
    with backends.claims.fenced(claim) as connection:
        media = store.media_file(connection, claim.item_id)
        store.completed(connection, media.id)
        analysed = store.checklists(connection, [media.id])[media.id][Step.AI_VISUAL_ANALYSIS]
        store.step_done(connection, claim, Step.UPDATE_CALLBACK)
        backends.claims.finish(connection, store.MEDIA, claim)
        tenant = str(media.user_id)
        backends.claims.enqueue(connection, store.URLS, [Item(media.main_api_id, tenant)])
        if analysed is StepState.FAILED:
            item = Item(media.id, tenant)
            backends.claims.enqueue(connection, store.HEALING, [item], delay=backoff(0), again=True)


def report(backends: Services, media_id: int) -> None:
    """Send the rich body. Repeating it is harmless: the key is the same while the content is."""
    with transaction(backends.engine) as connection:
        media = store.media_file(connection, media_id)
        body = payload(connection, media_id, backends.settings.public_base_url)
    key = f"complete-{media.main_api_id}-{media.recipe}-{'ai' if body['ai_enhanced'] else 'plain'}"
    try:
        backends.main_api.complete(media.main_api_id, body, idempotency_key=key)
    except PartnerRefused as refused:
        if refused.partner_status == 409:
            raise Conflict(f"The main API no longer wants image {media.main_api_id}: {refused.public}") from refused
        if refused.partner_status in {404, 410}:
            raise NotFound(f"The main API does not know image {media.main_api_id}.") from refused
        raise


def payload(connection: Any, media_id: int, public_base: str) -> dict[str, Any]:
    """The rich body of `POST /api/media/complete/{id}`."""
    made = {variant.format for variant in store.variants(connection, media_id)}
    analysis = store.analysis(connection, media_id) or {}
    media = store.media_file(connection, media_id)
    return {
        "media_id": str(media_id),
        "permanent_url": f"{public_base.rstrip('/')}/serve/{media_id}",
        "processing_complete": True,
        "ai_enhanced": analysis.get("style_classification") is not None,
        "formats_available": [name for name in _FORMATS if name in made],
        "ai_analysis": public_analysis(analysis, background_removed=bool(media.background_removed)),
    }


def public_analysis(analysis: dict[str, Any], *, background_removed: bool) -> dict[str, Any]:
    """The analysis as the documents shape it; what is not known is left out."""
    fields = {
        "style": analysis.get("style_classification"),
        "medium": analysis.get("medium_detected"),
        "subject": analysis.get("subject_matter"),
        "quality_score": analysis.get("quality_score"),
        "mood_keywords": analysis.get("mood_keywords"),
        "alt_text": analysis.get("alt_text"),
        "brand_name": analysis.get("brand_name"),
        "brand_colors": analysis.get("brand_colors"),
        "site_context": analysis.get("site_context"),
        "background_removed": background_removed or None,
        "dominant_colors": analysis.get("dominant_colors"),
        "detected_objects": analysis.get("detected_objects"),
        "detected_text": analysis.get("detected_text") or None,
        "confidence_score": analysis.get("confidence_score"),
        "providers": analysis.get("providers"),
    }
    return {name: value for name, value in fields.items() if value is not None}
