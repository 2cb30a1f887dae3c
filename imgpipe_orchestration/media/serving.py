"""Images at their URLs: `/serve/{media_id}` and `/api/images/{media_id}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.gateway.auth import Backends
from imgpipe_orchestration.media import negotiation, store
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.steps.retrieve import original
from imgpipe_orchestration.media.store import MediaFile, StoredVariant
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

router = APIRouter(tags=["serving"])

SIZES = ("thumbnail", "small", "grid", "detail", "header", "zoom")
FALLBACKS = {"thumbnail": "small", "small": "grid", "grid": "detail"}
"""What stands in for a size that is not there, as the documents have it."""
DEFAULT_SIZE = "detail"
ONE_YEAR = "public, max-age=31536000, immutable"
ONE_HOUR = "public, max-age=3600"


@router.get("/serve/{media_id}", response_class=Response)
def serve(
    media_id: int,
    request: Request,
    backends: Backends,
    size: Annotated[list[str] | None, Query()] = None,
    format: Annotated[str | None, Query()] = None,
    bg: Annotated[str | None, Query()] = None,
) -> Response:
    """An image's variant: the best format for the client (or `format`), cached for a year."""
    return _answer(backends, request, media_id, size, format, bg, ONE_YEAR)


@router.get("/api/images/{media_id}", response_class=Response)
def image(
    media_id: int,
    request: Request,
    backends: Backends,
    size: Annotated[list[str] | None, Query()] = None,
    format: Annotated[str | None, Query()] = None,
    bg: Annotated[str | None, Query()] = None,
) -> Response:
    """The smart URL: as `/serve`, cached for an hour."""
    return _answer(backends, request, media_id, size, format, bg, ONE_HOUR)


def _answer(
    backends: Services,
    request: Request,
    media_id: int,
    sizes: list[str] | None,
    format_: str | None,
    background: str | None,
    caching: str,
) -> Response:
    size = size_of(sizes)
    if format_ is not None and format_ not in negotiation.MIME_OF:
        raise BadInput400(f"format must be one of {', '.join(negotiation.MIME_OF)}.", field="format")
    if background not in {None, "removed", "original"}:
        raise BadInput400("bg must be removed or original.", field="bg")
    with transaction(backends.engine) as connection:
        media = store.media_file(connection, media_id)
        manifest = store.variants(connection, media_id)
    if not manifest:
        return _not_ready(backends, media)
    candidates = _of_size(manifest, size, background or "original")
    formats = [variant.format for variant in candidates]
    if format_ is None:
        chosen = negotiation.choose(request.headers.get("accept"), formats)
    elif format_ in formats:
        chosen = format_
    else:
        raise NotFound(f"Media {media_id} has no {format_} in size {size}; it has {', '.join(sorted(formats))}.")
    variant = next(v for v in candidates if v.format == chosen)
    headers = {
        "Cache-Control": caching,
        "ETag": f'"{variant.sha256[:32]}"',
        "X-Content-Type-Options": "nosniff",
        **({"Vary": "Accept"} if format_ is None else {}),
    }
    if _matches(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    data = backends.media_bucket.get(variant.object_key)
    return Response(data, media_type=negotiation.MIME_OF[chosen], headers=headers)


def size_of(sizes: list[str] | None) -> str:
    """The size asked for: the last one wins, since the front end appends to URLs that have one already; and it does so
    with a second question mark, so that a value may read `detail?size=thumbnail`.

    Raises:
        BadInput: an unknown size (400).
    """
    wanted = (sizes or [DEFAULT_SIZE])[-1].rpartition("?size=")[2]
    if wanted not in SIZES:
        raise BadInput400(f"size must be one of {', '.join(SIZES)}.", field="size")
    return wanted


class BadInput400(BadInput):
    """A query parameter outside its values: the documents' decision is 400."""

    status = 400


def _of_size(manifest: Sequence[StoredVariant], size: str, background: str) -> list[StoredVariant]:
    """The variants of a size, or of what stands in for it."""
    wanted: str | None = size
    while wanted:
        found = [v for v in manifest if v.size == wanted and v.background == background]
        if found:
            return found
        wanted = FALLBACKS.get(wanted)
    if background == "removed":
        raise NotFound("This image has no version without its background; ask for bg=original.")
    raise NotFound(f"This image has no size {size}.")


def _not_ready(backends: Services, media: MediaFile) -> Response:
    """Before the variants are there the original is shown, uncached; a failed image gives its reason."""
    if media.status is MediaStatus.FAILED:
        raise NotFound(f"Media {media.id} could not be processed: {media.error}")
    data = original(backends, media)
    headers: dict[str, Any] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept"}
    return Response(data, media_type=media.mime_type or "application/octet-stream", headers=headers)


def _matches(if_none_match: str | None, etag: str) -> bool:
    if not if_none_match:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag in {candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")}
