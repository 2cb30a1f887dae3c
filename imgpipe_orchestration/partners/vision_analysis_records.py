"""What the Vision Analysis API lists: its records, and those that cannot be used."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

MOST_ENTRIES = 200_000
MOST_DOCUMENTS = 20_000
"""Entries of a listing, and files of one of them, at most. An answer within its limit of bytes, which may come packed
to a thousandth, has room for ten million of either: gigabytes once each is an object."""


class _Record(BaseModel):
    """A record of the API: unknown fields are ignored, and null means the same as a missing field."""

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        return {name: v for name, v in given.items() if v is not None} if isinstance(given, dict) else given


class Document(_Record):
    """A file of an analysis. `document_name` is untrusted text, never a path. `document_path` is empty if unusable."""

    document_path: str = ""
    document_name: str = ""
    document_type: str = ""
    is_input: bool = True


Id = Annotated[str, Field(min_length=1, max_length=500)]


class VisionAnalysis(_Record):
    """One requested analysis. Its ids are sent back exactly as they came."""

    vision_analysis_id: Id
    vision_analysis_run_code: str = ""
    is_processed: bool = False
    organization_id: Id
    user_query: str = ""
    created_date: str = ""
    documents: tuple[Document, ...] = ()

    @field_validator("vision_analysis_id", "organization_id")
    @classmethod
    def _can_be_kept(cls, value: str) -> str:
        if not value.strip() or "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError("an id must have characters, all of them storable")
        return value

    @field_validator("created_date", mode="before")
    @classmethod
    def _or_unknown(cls, value: Any) -> str:
        return value if isinstance(value, str) else ""

    @field_validator("documents", mode="before")
    @classmethod
    def _each_by_itself(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) > MOST_DOCUMENTS:
            raise ValueError(f"there are more than {MOST_DOCUMENTS:,} of them")
        return [_document(entry) for entry in value if entry is not None]


class _Page(BaseModel):
    # Null means an empty list; a missing field is an error.
    vision_analysis: list[Any] | None


class Listing(_Record):
    """One page of the listing."""

    status: Annotated[Literal["success"], BeforeValidator(lambda said: said.lower() if isinstance(said, str) else said)]
    data: _Page


@dataclass(frozen=True, slots=True)
class Malformed:
    """An entry of the listing that cannot be used, with the reason; other entries can.

    `organization_id` is empty where the entry has none.
    """

    vision_analysis_id: str
    reason: str
    organization_id: str = ""


def analysis_of(entry: dict[str, Any]) -> VisionAnalysis | Malformed:
    """An entry of the listing as a record."""
    try:
        return VisionAnalysis.model_validate(entry)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        ids = (entry.get("vision_analysis_id"), entry.get("organization_id"))
        analysis, organization = (str(one) if isinstance(one, str | int) else "" for one in ids)
        return Malformed(analysis, f"{where}: {fault['msg']}", organization)


def _document(entry: Any) -> Document:
    """A document; one that cannot be parsed has no address, and counts as a missing image."""
    try:
        return Document.model_validate(entry)
    except ValidationError:
        name = entry.get("document_name") if isinstance(entry, dict) else None
        return Document(document_name=name if isinstance(name, str) else "")


def identity_of(found: VisionAnalysis | Malformed, entry: dict[str, Any]) -> bytes:
    """What is the same for two entries of one analysis. A digest, because an entry may be as long as a page."""
    named = json.dumps([found.organization_id.casefold(), found.vision_analysis_id.casefold()])
    if isinstance(found, Malformed) and not found.vision_analysis_id:
        named = json.dumps(entry, sort_keys=True)
    return hashlib.sha256(named.encode()).digest()
