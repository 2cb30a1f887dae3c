"""An image's analysis in the form of the specification (ours, or one that another worker reported), and what people
correct of it. A correction wins over the models until it is given back."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Connection, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.errors import BadInput, Conflict, NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import schema_of
from imgpipe_orchestration.media.model import OUR_MEDIA_ID
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.partners.json_text import refuse_deep
from imgpipe_orchestration.storage import jsonb
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.web.values import NoNul
from imgpipe_orchestration.wiring.services import Services

_CALLS = {"google_vision": "annotate", "openai_vision": "vision", "openai_embedding": "embedding"}
"""The parts of an analysis: the operation of their calls in the ledger."""


def analysis_of(services: Services, media_id: str) -> dict[str, Any]:
    """The `analysis` of a media id, its `moderation` once it has a verdict, the `standins` that made parts of it up if
    there are any, and the `trace_id` of its upload if it has one.

    Our own media take precedence, because another worker's ids may be the same numbers.

    Raises:
        NotFound: neither we nor a report know the id, or it has not been analysed yet.
    """
    with transaction(services.engine) as connection:
        try:
            media = store.media_file(connection, int(media_id) if re.fullmatch(OUR_MEDIA_ID, media_id) else 0)
        except NotFound:
            query = text(
                "select analysis from reported_analyses where media_id = :id order by reported_at desc limit 1"
            )
            reported = connection.scalar(query, {"id": media_id})
            if reported is None:
                raise NotFound(f"There is no media {media_id}.") from None
            return {"analysis": reported}
        found = store.analysis(connection, media.id)
        if found is None:
            raise NotFound(f"Media {media_id} has not been analysed yet; it is {media.status}.")
        further = {
            "moderation": verdicts.shown(connection, "media", media.id),
            "standins": standins_of(connection, media.id),
            "trace_id": tracing.id_of(media.trace),
        }
    analysis = public_analysis(found, background_removed=bool(media.background_removed))
    return {"analysis": analysis} | {name: value for name, value in further.items() if value}


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
    try:
        refuse_deep(json.dumps(analysis))  # cleaning it is recursive, as is serialising it for who reads it
    except ValueError as error:
        raise BadInput("ai_analysis is nested too deeply.", field="ai_analysis") from error
    query = text("""
        insert into reported_analyses (pending_id, media_id, analysis) values (:pending, :media, cast(:found as jsonb))
        on conflict (pending_id) do update set analysis = excluded.analysis, reported_at = now()
    """)
    connection.execute(query, {"pending": pending_id, "media": media_id, "found": jsonb.dumps(analysis)})


def public_analysis(analysis: dict[str, Any], *, background_removed: bool) -> dict[str, Any]:
    """The analysis in the form of the specification, without unknown fields."""
    corrected = (analysis.get("corrected") or {}).items()
    fields = {name: analysis.get(column) for column, name in _FIELDS.items()} | {
        "detected_text": analysis.get("detected_text") or None,
        "background_removed": background_removed or None,
        "providers": analysis.get("providers"),
        "answered_by": analysis.get("answered_by") or None,
        "corrected": {_FIELDS[column]: {"by": one["by"], "at": one["at"]} for column, one in corrected} or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


# --- what people correct ---------------------------------------------------------------------------------------------


_SENTENCES = ("alt_text", "subject")
Hex = Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$", examples=["#1c2b3a"]), AfterValidator(str.lower)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Colour(_Strict):
    hex: Hex
    share: Share


def _ordered(box: list[float]) -> list[float]:
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("box is left, top, right, bottom in shares of the image, with left < right and top < bottom")
    return box


Corners = Annotated[
    list[Share], Field(min_length=4, max_length=4, examples=[[0.1, 0.2, 0.5, 0.8]]), AfterValidator(_ordered)
]


class DetectedObject(_Strict):
    """`box` is left, top, right, bottom in shares of the image."""

    name: Annotated[NoNul, Field(max_length=255)]
    score: Share = 1.0
    box: Corners | None = None


class SiteContext(_Strict):
    content_kind: Literal["banner", "background", "content", "ui_element"]
    owner_fit: int
    owner_fit_reason: Annotated[NoNul, Field(max_length=2_000)]
    seo_alt_text: Annotated[NoNul, Field(max_length=2_000)]


class Correction(_Strict):
    """Fields to set; null gives one back to the model."""

    style: NoNul | None = Field(None, max_length=255)
    medium: NoNul | None = Field(None, max_length=255)
    subject: NoNul | None = Field(None, max_length=2_000)
    quality_score: int | None = Field(None, ge=0, le=100)
    mood_keywords: list[NoNul] | None = Field(None, max_length=30)
    alt_text: NoNul | None = Field(None, max_length=2_000)
    brand_name: NoNul | None = Field(None, max_length=255)
    brand_colors: list[Hex] | None = Field(None, max_length=30)
    site_context: SiteContext | None = None
    dominant_colors: list[Colour] | None = Field(None, max_length=30)
    detected_objects: list[DetectedObject] | None = Field(None, max_length=50)
    detected_text: NoNul | None = Field(None, max_length=50_000)
    confidence_score: Share | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were given, whole."""
        return {name: value for name, value in self.model_dump().items() if name in self.model_fields_set}


_NAMED_OTHERWISE = {"style": "style_classification", "medium": "medium_detected", "subject": "subject_matter"}
_COLUMNS = {name: _NAMED_OTHERWISE.get(name, name) for name in Correction.model_fields}
"""The fields of an analysis by their names in the specification, and their columns. People may correct each."""
_FIELDS = {column: name for name, column in _COLUMNS.items()}


def correct(services: Services, media: MediaFile, fields: Mapping[str, Any], *, by: str) -> None:
    """Set fields of `Correction`, or give those with None back.

    Raises:
        NotFound: the image is not analysed yet.
    """
    columns = {_COLUMNS[name]: value for name, value in fields.items()}
    at = datetime.now(UTC).isoformat(timespec="seconds")
    given = {name: {"value": value, "by": by, "at": at} for name, value in columns.items() if value is not None}
    back = [name for name, value in columns.items() if value is None]
    # The colours are named because the search's follow an update of them.
    query = text("""
        update media_ai_analysis set corrected = corrected - cast(:back as text[]) || cast(:given as jsonb),
            dominant_colors = dominant_colors
        where media_id = :id
    """)
    with transaction(services.engine) as connection:
        found = store.analysis(connection, media.id)
        if found is None:
            raise NotFound(f"Media {media.id} has not been analysed yet; it is {media.status}.")
        audit.note(before={name: found[_COLUMNS[name]] for name in fields}, after=fields)
        connection.execute(query, {"id": media.id, "back": back, "given": json.dumps(given)})


def export(services: Services, folder: Path) -> tuple[int, Counter[str]]:
    """Write the corrected images and `expected.jsonl`, a line an image with the fields as people want them: a set to
    evaluate models with. Returns how many images, and how many were left out for each reason."""
    query = text("""
        select f.id, f.kind, f.bulk_path, a.corrected from media_ai_analysis a join live_media f on f.id = a.media_id
        where a.corrected <> '{}' and f.bulk_path is not null order by f.id
    """)
    with transaction(services.engine) as connection:
        rows = connection.execute(query).all()
    folder.mkdir(parents=True, exist_ok=True)
    left_out: Counter[str] = Counter()
    with (folder / "expected.jsonl").open("w", encoding="utf-8") as lines:
        for row in rows:
            name = f"{row.id}{Path(row.bulk_path).suffix or '.jpg'}"
            expect = _expectations(row.kind, {_FIELDS[column]: one["value"] for column, one in row.corrected.items()})
            if not expect:
                left_out["an evaluation checks nothing that was corrected"] += 1
                continue
            try:
                (folder / name).write_bytes(services.media_bucket.get(row.bulk_path))
            except NotFound:
                left_out["the original is missing"] += 1
                continue
            lines.write(json.dumps({"image": name, "kind": row.kind, "expect": expect}, ensure_ascii=False) + "\n")
    return len(rows) - left_out.total(), left_out


def _expectations(kind: str, corrected: Mapping[str, Any]) -> dict[str, Any]:
    """What must hold of the fields that a model is asked for. No model writes the very sentence that a person wrote, so
    one of its long words must be there, and only where nothing else was corrected."""
    asked = schema_of(kind).model_fields
    fields = {name: given for name, given in corrected.items() if name in asked and given not in ("", [])}
    exact = {name: _expected(given) for name, given in fields.items() if name not in _SENTENCES}
    words = {name: re.findall(r"[a-zA-ZÀ-ӿ]{5,}", fields.get(name, "")) for name in _SENTENCES}
    return exact or {name: {"contains": found} for name, found in words.items() if found}


def _expected(value: Any) -> dict[str, Any]:
    """What must hold of a field, as a set for `evaluation` writes it: the text, the number, or one of a list."""
    if isinstance(value, list):
        return {"in": value}
    return {"within": [value, value]} if isinstance(value, int) else {"contains": [value]}


def set_focus(services: Services, media_id: int, box: Sequence[float] | None) -> None:
    """Set the focus, or with None leave it to the engine. The variants are made again; the old ones are served until
    then.

    Args:
        box: left, top, right, bottom in shares of width and height.

    Raises:
        BadInput: it is not a box.
        NotFound: there is no such image.
        Conflict: it has no variants yet.
    """
    if box is not None and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise BadInput("box is left, top, right, bottom from 0 to 1, with left < right and top < bottom.", field="box")
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
        if media.recipe is None:
            raise Conflict(f"Media {media_id} has no variants yet; it is {media.status}.")
        audit.note(before={"focus": media.focus}, after={"focus": box})
        focus = None if box is None else json.dumps({"box": list(box), "reason": "manual"})
        query = text("update media_files set focus = cast(:focus as jsonb) where id = :id")
        connection.execute(query, {"id": media_id, "focus": focus})
        item = Item(media_id, str(media.user_id), media.upload_day.isoformat())
        services.claims.enqueue(connection, store.REMAKE_VARIANTS, [item], again=True)
