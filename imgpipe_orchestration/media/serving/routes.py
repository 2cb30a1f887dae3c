"""`/serve/{media_id}` and `/api/images/{media_id}`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from imgpipe_orchestration.errors import ImgpipeError, NotFound
from imgpipe_orchestration.gateway import problems
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.serving import decision
from imgpipe_orchestration.media.serving.changes import follow_changes
from imgpipe_orchestration.media.serving.decision import Wish
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.media.serving.negotiation import MIME_OF
from imgpipe_orchestration.media.serving.placeholder import PLACEHOLDER, SHOWN_BY_BROWSERS
from imgpipe_orchestration.media.serving.ranges import Unsatisfiable, wanted
from imgpipe_orchestration.media.steps.retrieve import original
from imgpipe_orchestration.media.store import MediaFile, StoredVariant
from imgpipe_orchestration.services import Services

router = APIRouter(tags=["serving"])

ONE_YEAR = "public, max-age=31536000, immutable"
ONE_HOUR = "public, max-age=3600"
VARY = {"Vary": "Accept"}
NOSNIFF = {"X-Content-Type-Options": "nosniff"}

_IMAGES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The image", "content": {mime: {} for mime in MIME_OF.values()}},
    206: {"description": "The part of it that Range asks for", "content": {mime: {} for mime in MIME_OF.values()}},
    304: {"description": "The client has it already"},
    400: {"description": "No such size, format or background", "content": {problems.MEDIA_TYPE: {}}},
    404: {"description": "No such image, or it could not be processed", "content": {problems.MEDIA_TYPE: {}}},
    416: {"description": "The range lies outside of the image", "content": {problems.MEDIA_TYPE: {}}},
    503: {"description": "Neither kept in memory nor to be had just now", "content": {problems.MEDIA_TYPE: {}}},
}

Id = Annotated[int, Path(ge=1, lt=2**63)]
Sizes = Annotated[list[str] | None, Query(description=f"one of {', '.join(decision.SIZES)}; the last one counts")]
Formats = Annotated[list[str] | None, Query(description=f"one of {', '.join(MIME_OF)}; without it Accept decides")]
Backgrounds = Annotated[list[str] | None, Query(description="original, or removed (logos)")]
Explain = Annotated[bool, Query(description="say why this client gets these bytes, instead of the bytes")]


@asynccontextmanager
async def serving(app: FastAPI, backends: Services) -> AsyncIterator[None]:
    """Part of the app's life: the hot images, and a task that keeps them true."""
    app.state.hot = HotImages(backends)
    task = asyncio.create_task(follow_changes(backends, app.state.hot))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@router.head("/serve/{media_id}", response_class=Response, include_in_schema=False)
@router.get("/serve/{media_id}", response_class=Response, responses=_IMAGES)
async def serve(
    media_id: Id,
    request: Request,
    size: Sizes = None,
    format: Formats = None,
    bg: Backgrounds = None,
    explain: Explain = False,
) -> Response:
    """An image's variant in the best format for the client (or in `format`), cached for a year."""
    return await _answer(request, media_id, (size, format, bg), ONE_YEAR, explain=explain)


@router.head("/api/images/{media_id}", response_class=Response, include_in_schema=False)
@router.get("/api/images/{media_id}", response_class=Response, responses=_IMAGES)
async def image(
    media_id: Id,
    request: Request,
    size: Sizes = None,
    format: Formats = None,
    bg: Backgrounds = None,
    explain: Explain = False,
) -> Response:
    """The smart URL: as `/serve`, cached for an hour."""
    return await _answer(request, media_id, (size, format, bg), ONE_HOUR, explain=explain)


Query3 = tuple[list[str] | None, list[str] | None, list[str] | None]


async def _answer(request: Request, media_id: int, query: Query3, caching: str, *, explain: bool) -> Response:
    """The image, or the problem; either says that Accept mattered when it did."""
    vary = {} if query[1] else VARY
    try:
        wish = decision.read(*(values or [] for values in query))
        return await _found(request, media_id, wish, {"Cache-Control": caching, **vary, **NOSNIFF}, explain=explain)
    except ImgpipeError as error:
        answer = problems.of_error(error)
        answer.headers.update(vary)
        return answer


async def _found(request: Request, media_id: int, wish: Wish, headers: dict[str, str], *, explain: bool) -> Response:
    hot: HotImages = request.app.state.hot
    manifest = await hot.manifest(media_id)
    if not manifest.variants:
        return await asyncio.to_thread(_not_ready, request.app.state.services, manifest.media, headers)
    accept = request.headers.get("accept")
    decided = decision.decide(manifest.variants, wish, accept)
    if explain:
        return JSONResponse(decided.explained(wish, accept), headers={**headers, "Cache-Control": "no-store"})
    return await _sent(request, hot, decided.variant, headers)


async def _sent(request: Request, hot: HotImages, variant: StoredVariant, headers: dict[str, str]) -> Response:
    """304, 206, 416, or the whole."""
    etag = f'"{variant.sha256[:32]}"'
    headers |= {"ETag": etag, "Accept-Ranges": "bytes"}
    if _has_it(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    mime = MIME_OF[variant.format]
    if request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(variant.bytes)}, media_type=mime)
    data = await hot.content(variant)
    asked = request.headers.get("range")
    if asked is None or request.headers.get("if-range", etag) != etag:
        return Response(data, headers=headers, media_type=mime)
    try:
        part = wanted(asked, len(data))
    except Unsatisfiable:
        span = {"Content-Range": f"bytes */{len(data)}"}
        detail = f"The image has {len(data)} bytes."
        return problems.problem(416, "Range not satisfiable", detail, code="range", headers={**span, **_vary(headers)})
    if part is None:
        return Response(data, headers=headers, media_type=mime)
    first, last = part
    headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
    return Response(data[first : last + 1], 206, headers=headers, media_type=mime)


def _vary(headers: dict[str, str]) -> dict[str, str]:
    return VARY if "Vary" in headers else {}


def _not_ready(backends: Services, media: MediaFile, headers: dict[str, str]) -> Response:
    """Before the variants are there the original is shown (or a placeholder where no browser could), uncached.

    Raises:
        NotFound: the image failed; says why.
    """
    if media.status is MediaStatus.FAILED:
        raise NotFound(f"Media {media.id} could not be processed: {media.error}")
    headers = {**headers, "Cache-Control": "no-store"}
    if media.mime_type not in SHOWN_BY_BROWSERS:
        return Response(PLACEHOLDER, media_type="image/svg+xml", headers=headers)
    return Response(original(backends, media), media_type=media.mime_type, headers=headers)


def _has_it(if_none_match: str | None, etag: str) -> bool:
    """Weak comparison, as RFC 9110 section 13.1.2 has it for If-None-Match."""
    if not if_none_match:
        return False
    if if_none_match.strip() == "*":
        return True
    return etag in (candidate.strip().removeprefix("W/") for candidate in if_none_match.split(","))
