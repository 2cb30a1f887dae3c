"""An image's analysis in the form of the specification: ours, or one that another worker reported."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.media import corrections, store
from imgpipe_orchestration.media.model import OUR_MEDIA_ID
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import jsonb
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing

_CALLS = {"google_vision": "annotate", "openai_vision": "vision", "openai_embedding": "embedding"}
"""The parts of an analysis: the operation of their calls in the ledger."""
_DEEPEST = 64
"""Most levels of nesting in a reported analysis. Parsing could take more, but cleaning and serialising is recursive."""


def analysis_of(services: Services, media_id: str) -> dict[str, Any]:
    """The `analysis` of a media id, its `moderation` once it has a verdict, the `standins`
    that made parts of it up if there are any, and the `trace_id` of its
    upload if it has one.

    Our own media take precedence, because another worker's ids may be the same numbers.

    Raises:
        NotFound: neither we nor a report know the id, or it has not been analysed yet.
    """
    with transaction(services.engine) as connection:
        try:
            media = store.media_file(connection, int(media_id) if re.fullmatch(OUR_MEDIA_ID, media_id) else 0)
        except NotFound:
            return {"analysis": _reported(connection, media_id)}
        found = store.analysis(connection, media.id)
        if found is None:
            raise NotFound(f"Media {media_id} has not been analysed yet; it is {media.status}.")
        standins = standins_of(connection, media.id)
        verdict = verdicts.shown(connection, "media", media.id)
    analysis = public_analysis(found, background_removed=bool(media.background_removed))
    trace = tracing.id_of(media.trace)
    return (
        {"analysis": analysis}
        | ({"moderation": verdict} if verdict else {})
        | ({"standins": standins} if standins else {})
        | ({"trace_id": trace} if trace else {})
    )


def standins_of(connection: Connection, media_id: int) -> list[str]:
    """The providers for whom a stand-in answered last."""
    made_up = spending.standins(connection, "media", f"media/{media_id}")
    return [provider for provider, call in _CALLS.items() if call in made_up]


def keep_reported(connection: Connection, pending_id: int, media_id: str, analysis: object) -> None:
    """Store the analysis that another worker reported with an upload, if there is one.

    Raises:
        BadInput: it is nested too deeply.
    """
    if not isinstance(analysis, dict) or not analysis:
        return
    if _is_deeper(analysis, _DEEPEST):
        raise BadInput(f"ai_analysis is nested in more than {_DEEPEST} levels.", field="ai_analysis")
    query = text("""
        insert into reported_analyses (pending_id, media_id, analysis) values (:pending, :media, cast(:found as jsonb))
        on conflict (pending_id) do update set analysis = excluded.analysis, reported_at = now()
    """)
    connection.execute(query, {"pending": pending_id, "media": media_id, "found": jsonb.dumps(analysis)})


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether lists and dictionaries are nested in more than `levels` levels; without recursion."""
    inside = [value]
    for _ in range(levels):
        containers = [each.values() if isinstance(each, dict) else each for each in inside if _is_container(each)]
        inside = [item for container in containers for item in container]
    return any(_is_container(each) for each in inside)


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list)


def _reported(connection: Connection, media_id: str) -> dict[str, Any]:
    query = text("select analysis from reported_analyses where media_id = :id order by reported_at desc limit 1")
    found: dict[str, Any] | None = connection.scalar(query, {"id": media_id})
    if found is None:
        raise NotFound(f"There is no media {media_id}.")
    return found


def public_analysis(analysis: dict[str, Any], *, background_removed: bool) -> dict[str, Any]:
    """The analysis in the form of the specification, without unknown fields."""
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
        "answered_by": analysis.get("answered_by") or None,
        "corrected": corrections.shown(analysis.get("corrected") or {}) or None,
    }
    return {name: value for name, value in fields.items() if value is not None}
