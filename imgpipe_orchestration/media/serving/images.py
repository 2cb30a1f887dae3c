"""`/serve/{media_id}` and `/api/images/{media_id}`: from a request to an answer.

Plain ASGI before the router: to try a path against every route of the gateway and to solve dependencies costs ten times
as much as to find a hot image. What is not about an image by its number goes on to the router.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.errors import ImgpipeError, NotFound
from imgpipe_orchestration.gateway import problems
from imgpipe_orchestration.gateway.headers import has_it
from imgpipe_orchestration.imaging.browsers import SHOWN_BY_BROWSERS
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.model import MediaStatus
from imgpipe_orchestration.media.serving import decision, signing
from imgpipe_orchestration.media.serving.decision import Wish
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.media.serving.negotiation import MIME_OF
from imgpipe_orchestration.media.serving.placeholder import PLACEHOLDER
from imgpipe_orchestration.media.serving.ranges import Unsatisfiable, wanted
from imgpipe_orchestration.media.steps.retrieve import original
from imgpipe_orchestration.media.store import StoredVariant
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_PATH = re.compile(r"/(serve|api/images)/([1-9][0-9]{0,17})", re.ASCII)
_NAMES_FORMAT = re.compile(rb"(?:^|[&?])format=")
_HEADERS = frozenset({b"accept", b"if-none-match", b"if-range", b"range", b"referer", b"user-agent"})
PRIVATE_SECONDS = 3600
"""How long a browser may keep a private image; shared caches never may."""


@dataclass(frozen=True, slots=True)
class Address:
    """One of the two kinds of URLs; they differ in how long their answers may be kept."""

    path: str
    caching: str
    description: str


ADDRESSES = {
    "serve": Address(
        "/serve/{media_id}",
        "public, max-age=31536000, immutable",
        "An image in the best format for the client (or in `format`), to be kept for a year.",
    ),
    "api/images": Address(
        "/api/images/{media_id}", "public, max-age=3600", "The smart URL: as `/serve`, to be kept for an hour."
    ),
}


class Images:
    """Answers what is asked about images by number; `app` gets the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} and _PATH.fullmatch(scope["path"])
        if not asked:
            await self.app(scope, receive, send)
            return
        address = scope["route"] = ADDRESSES[asked[1]]
        answer = await respond(scope, int(asked[2]), address.caching)
        await answer(scope, receive, send)


async def respond(scope: Scope, media_id: int, caching: str) -> Response:
    """The image or the problem; either says that Accept mattered, unless the URL names a format."""
    vary = "" if _NAMES_FORMAT.search(scope["query_string"]) else "Accept"
    try:
        return await _found(scope, media_id, caching, vary)
    except ImgpipeError as error:
        answer = problems.reported(error, scope["path"])
    except Unsatisfiable as error:
        span = {"Content-Range": f"bytes */{error.size}"}
        answer = problems.problem(416, "Range not satisfiable", str(error), code="range", headers=span)
    if vary:
        answer.headers["Vary"] = vary
    return answer


async def _found(scope: Scope, media_id: int, caching: str, vary: str, *, again: bool = False) -> Response:
    """
    Raises:
        UnknownOption, NotFound, BackendUnavailable, Unsatisfiable; of a private image PrivateImage, LinkExpired,
        LinkInvalid.
    """
    state = scope["app"].state
    hot: HotImages = state.hot
    wish = decision.read(scope["query_string"])
    asked = _asked(scope)
    accept = asked.get(b"accept")
    manifest = hot.manifests.peek(media_id) or await hot.manifest(media_id)
    if manifest.private:
        seconds = signing.check(state.services.settings, media_id, wish.signature, wish.parameters)
        caching = f"private, max-age={min(seconds, PRIVATE_SECONDS)}"
    if not manifest.variants:
        return await asyncio.to_thread(_not_ready, state.services, media_id, wish, accept, vary)
    decided = decision.decide(manifest.variants, wish, accept)
    if wish.explain:
        return JSONResponse(decided.explained(wish, accept), headers={"Cache-Control": "no-store", "Vary": "Accept"})
    if not again:
        state.callers.note(media_id, decided.variant, asked.get(b"referer", ""), asked.get(b"user-agent", ""))
    variant = decided.variant
    etag = f'"{variant.sha256[:32]}"'
    if has_it(asked.get(b"if-none-match"), etag):
        return Ready(_head(etag, caching, vary), status=304)
    if scope["method"] == "HEAD":
        return Ready(_head(etag, caching, vary, MIME_OF[variant.format], variant.bytes))
    try:
        data = hot.bytes.peek(variant.object_key) or await hot.content(variant)
    except NotFound:
        if again:
            raise
        # The image was made again since its manifest was read, and the old objects went.
        hot.forget(media_id)
        return await _found(scope, media_id, caching, vary, again=True)
    return _sent(asked, variant, data, etag, caching, vary)


def _sent(asked: dict[bytes, str], variant: StoredVariant, data: bytes, etag: str, caching: str, vary: str) -> Response:
    """The whole, or the part that was asked for."""
    part = wanted(asked.get(b"range"), len(data)) if asked.get(b"if-range", etag) == etag else None
    if part is None:
        return Ready(_head(etag, caching, vary, MIME_OF[variant.format], len(data)), data)
    first, last = part
    span = (b"content-range", f"bytes {first}-{last}/{len(data)}".encode())
    head = _head(etag, caching, vary, MIME_OF[variant.format], last - first + 1)
    return Ready([*head, span], data[first : last + 1], status=206)


def _asked(scope: Scope) -> dict[bytes, str]:
    """The request's headers that decide; lines of the same name are one list (RFC 9110, section 5.3)."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            text = value.decode("latin-1")
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found


class Ready(Response):
    """An answer whose head is encoded already."""

    def __init__(self, head: list[tuple[bytes, bytes]], body: bytes = b"", status: int = 200) -> None:
        self.status_code = status
        self.raw_headers = head
        self.body = body
        self.background = None


@lru_cache(maxsize=4096)
def _head(etag: str, caching: str, vary: str, mime: str = "", length: int = 0) -> list[tuple[bytes, bytes]]:
    """The head of an image, without type and length that of a 304. Shared: not to be changed."""
    fields = {"cache-control": caching, "etag": etag, "accept-ranges": "bytes", "vary": vary, "content-type": mime}
    if mime:
        fields["content-length"] = str(length)
    return [(name.encode(), value.encode()) for name, value in fields.items() if value]


def _not_ready(backends: Services, media_id: int, wish: Wish, accept: str | None, vary: str) -> Response:
    """Before the variants are there the original is shown (or a placeholder where no browser could), uncached.

    Raises:
        NotFound: the image failed; says why. Or it has just been deleted.
        BackendUnavailable: the database or the object store is away.
    """
    with transaction(backends.engine) as connection:
        media = store.media_file(connection, media_id)
    if media.status is MediaStatus.FAILED:
        raise NotFound(f"Media {media_id} could not be processed: {media.error}")
    headers = {"Cache-Control": "no-store", **({"Vary": vary} if vary else {})}
    showable = media.mime_type in SHOWN_BY_BROWSERS
    if wish.explain:
        return JSONResponse(decision.explained_meanwhile(wish, accept, original=showable), headers=headers)
    if not showable:
        return Response(PLACEHOLDER, media_type="image/svg+xml", headers=headers)
    return Response(original(backends, media), media_type=media.mime_type, headers=headers)
