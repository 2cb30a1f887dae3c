"""What people correct in the analysis of an image. It wins over the models until it is given back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.store import MediaFile
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.values import NoNul

COLUMNS = {"style": "style_classification", "medium": "medium_detected", "subject": "subject_matter"}
"""Columns of fields that have another name."""


MEASURED = {"detected_text", "dominant_colors", "brand_colors", "detected_objects", "confidence_score", "site_context"}
"""Columns that no expectation of an evaluation is about."""
Hex = Annotated[str, Field(pattern="^#[0-9a-f]{6}$", examples=["#1c2b3a"])]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Colour(_Strict):
    hex: Hex
    share: Share


class DetectedObject(_Strict):
    """`box` is left, top, right, bottom in shares of the image."""

    name: Annotated[NoNul, Field(max_length=255)]
    score: Share = 1.0
    box: list[Share] | None = Field(None, min_length=4, max_length=4, examples=[[0.1, 0.2, 0.5, 0.8]])


class SiteContext(_Strict):
    content_kind: Literal["banner", "background", "content", "ui_element"]
    owner_fit: int
    owner_fit_reason: Annotated[NoNul, Field(max_length=2_000)]
    seo_alt_text: Annotated[NoNul, Field(max_length=2_000)]


class Correction(_Strict):
    """Fields to set; null gives one back to the model."""

    alt_text: NoNul | None = Field(None, max_length=2_000)
    style: NoNul | None = Field(None, max_length=255)
    medium: NoNul | None = Field(None, max_length=255)
    subject: NoNul | None = Field(None, max_length=2_000)
    quality_score: int | None = Field(None, ge=0, le=100)
    mood_keywords: list[NoNul] | None = Field(None, max_length=30)
    brand_name: NoNul | None = Field(None, max_length=255)
    detected_text: NoNul | None = Field(None, max_length=50_000)
    dominant_colors: list[Colour] | None = Field(None, max_length=30)
    brand_colors: list[Hex] | None = Field(None, max_length=30)
    detected_objects: list[DetectedObject] | None = Field(None, max_length=50)
    confidence_score: Share | None = None
    site_context: SiteContext | None = None

    def given(self) -> dict[str, Any]:
        """The fields that were given, whole."""
        return {name: value for name, value in self.model_dump().items() if name in self.model_fields_set}


def correct(services: Services, media: MediaFile, fields: Mapping[str, Any], *, by: str) -> None:
    """Set fields of `Correction`, or give those with None back.

    Raises:
        NotFound: the image is not analysed yet.
    """
    columns = {COLUMNS.get(name, name): value for name, value in fields.items()}
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
        values = {"id": media.id, "back": back, "given": json.dumps(given)}
        if not connection.execute(query, values).rowcount:
            raise NotFound(f"Media {media.id} has not been analysed yet; it is {media.status}.")


def shown(corrected: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Who corrected which field, and when; the column `corrected` in the names of the specification."""
    names = {column: name for name, column in COLUMNS.items()}
    return {names.get(name, name): {"by": one["by"], "at": one["at"]} for name, one in corrected.items()}


def export(services: Services, folder: Path) -> int:
    """Write the corrected images and `expected.jsonl`, a line an image with the fields as people want them: a set to
    evaluate models with. Returns how many images."""
    with transaction(services.engine) as connection:
        rows = list(_corrected(connection))
    folder.mkdir(parents=True, exist_ok=True)
    names = {column: name for name, column in COLUMNS.items()}
    with (folder / "expected.jsonl").open("w", encoding="utf-8") as lines:
        for media_id, corrected in rows:
            with transaction(services.engine) as connection:
                media = store.media_file(connection, media_id)
            name = f"{media_id}{Path(media.bulk_path or '').suffix or '.jpg'}"
            (folder / name).write_bytes(services.media_bucket.get(media.bulk_path or ""))
            expect = {
                names.get(column, column): _expected(one["value"])
                for column, one in corrected.items()
                if column not in MEASURED
            }
            line = {"image": name, "kind": media.kind, "expect": expect}
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(rows)


def _expected(value: Any) -> dict[str, Any]:
    """What must hold of a field, as a set for `evaluation` writes it: the text, the number, or one of a list."""
    if isinstance(value, list):
        return {"in": value}
    return {"within": [value, value]} if isinstance(value, int) else {"contains": [value]}


def _corrected(connection: Connection) -> list[tuple[int, dict[str, Any]]]:
    query = text("""
        select a.media_id, a.corrected from media_ai_analysis a join live_media f on f.id = a.media_id
        where a.corrected <> '{}' and f.bulk_path is not null order by a.media_id
    """)
    return [(row.media_id, row.corrected) for row in connection.execute(query)]
