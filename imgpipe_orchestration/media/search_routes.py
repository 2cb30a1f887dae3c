"""HTTP routes of the search, with the same credential as the analyses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from imgpipe_orchestration.errors import BadInput
from imgpipe_orchestration.media import embedding, search
from imgpipe_orchestration.media.model import DataType, MediaStatus
from imgpipe_orchestration.media.search import Filters, Found
from imgpipe_orchestration.media.serving.signing import url_for_owner
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.web.auth import ServicesDep, allowed
from imgpipe_orchestration.web.queries import KNOWN_ONLY
from imgpipe_orchestration.web.values import Colour, RowId

router = APIRouter(prefix="/api/media", tags=["media"], dependencies=[Depends(allowed)])


class Hit(BaseModel):
    """An image that was found."""

    media_id: str
    user_id: int
    data_type: DataType
    original_name: str | None
    status: MediaStatus
    width: int | None
    height: int | None
    alt_text: str | None
    placeholder: str | None = Field(description="A tiny blurred picture, as a data URL.")
    private: bool = Field(description="Found by `user_id` only; the URL is signed for its owner.")
    url: str
    created_at: datetime
    why: str = Field(description="words, number, file name, meaning, colour, looks; empty in a plain list.")
    distance: float | None = Field(
        description="By meaning: cosine, 0 to 2. By colour: Oklab. By looks: bits of 64. None where there is none."
    )


class SearchAnswer(BaseModel):
    success: bool = True
    images: list[Hit]
    total: int
    note: str = Field("", description="What the search had to do without.")
    next: int | None = Field(None, description="Pass it as `before` for the page that follows a plain list.")


class DuplicatesAnswer(BaseModel):
    """Three kinds that are not mixed: an image is listed in the strictest that fits."""

    success: bool = True
    media_id: str
    identical_bytes: list[Hit]
    identical_pixels: list[Hit]
    similar: list[Hit]


@router.get("/search", dependencies=KNOWN_ONLY)
def search_media(
    services: ServicesDep,
    text: Annotated[str, Query(max_length=500, description="Words; quotes and - work as in web searches.")] = "",
    color: Annotated[Colour, Query(description="rrggbb, with or without #.")] = "",
    similar_to: Annotated[RowId | None, Query(description="A media id.")] = None,
    status: MediaStatus | None = None,
    data_type: DataType | None = None,
    user_id: RowId | None = None,
    before: RowId | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 60,
) -> SearchAnswer:
    """Images by text, by colour or by likeness, best first; with none of these the newest. One of them at a time."""
    measures = sum((bool(text.strip()), bool(color), similar_to is not None))
    if measures > 1:
        raise BadInput("Search by text, color or similar_to, one at a time.", field="text")
    if measures and before is not None:
        raise BadInput("Only the newest images have a next page; a search gives its best ones.", field="before")
    if "\0" in text:
        raise BadInput("text contains NUL.", field="text")
    filters, note = Filters(status, data_type, user_id), ""
    vector = None
    if text.strip():
        vector, note = embedding.vector_of(services, text.strip())
    with transaction(services.engine) as connection:
        if text.strip():
            found = search.by_text(connection, text.strip(), vector, filters, limit=limit)
        elif color:
            found = search.by_colour(connection, "#" + color.lstrip("#"), filters, limit=limit)
        elif similar_to is not None:
            found = search.like(connection, similar_to, filters, limit=limit)
        else:
            found = search.latest(connection, filters, before=before, limit=limit)
    further = found[-1].id if not measures and len(found) == limit else None
    hits = [_hit(one, services.settings) for one in found]
    return SearchAnswer(images=hits, total=len(hits), note=note, next=further)


@router.get("/duplicates/{media_id}")
def duplicates_of(media_id: RowId, services: ServicesDep) -> DuplicatesAnswer:
    """Other images that are the same: identical bytes, identical pixels, or similar with their distance."""
    with transaction(services.engine) as connection:
        found = search.duplicates(connection, media_id)
    kinds = {
        name: [_hit(one, services.settings) for one in getattr(found, name)] for name in search.Duplicates.__slots__
    }
    return DuplicatesAnswer(media_id=str(media_id), **kinds)


def _hit(found: Found, settings: Settings) -> Hit:
    values = {name: getattr(found, name) for name in Hit.model_fields if hasattr(found, name)}
    url = url_for_owner(settings, found.id, private=found.private)
    return Hit(media_id=str(found.id), url=url, **values)
