"""The shape of a description by kind of image, and its question; the words are in `prompts/describe.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from imgpipe_orchestration.media import model
from imgpipe_orchestration.media.model import DataType
from imgpipe_orchestration.prompts.library import Prompt


class Seen(BaseModel):
    """What every image is asked for."""

    style: str
    medium: str
    subject: str
    quality_score: int
    mood_keywords: list[str]
    alt_text: str
    confidence: float


class SeenLogo(Seen):
    """A logo is also asked for the brand."""

    brand_name: str | None
    trademark_hint: str | None


class SeenSite(Seen):
    """A site's image is also asked what it is good for on the site."""

    content_kind: Literal["banner", "background", "content", "ui_element"]
    owner_fit: int
    owner_fit_reason: str
    seo_alt_text: str


SCHEMAS: dict[DataType, type[Seen]] = {DataType.LOGO: SeenLogo, DataType.SITES: SeenSite}


def schema_of(data_type: DataType) -> type[Seen]:
    """The answer's shape for a kind of image."""
    return SCHEMAS.get(data_type, Seen)


def question(prompt: Prompt, kind: str, owner: Mapping[str, Any]) -> str:
    """The question about one image; `owner` (profile and catalogue) is used for site images only."""
    return prompt.question(kind=kind, owner=json.dumps(owner, ensure_ascii=False)[:4000])


def versions(prompt: Prompt) -> dict[str, str]:
    """By kind of image, the version of what is asked and answered: what changed is asked again by a backfill."""
    return {
        kind: prompt.version(schema_of(field.data_type), kind=kind, owner="") for kind, field in model.BY_KIND.items()
    }
