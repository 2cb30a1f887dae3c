"""`/serve/{media_id}` and `/api/images/{media_id}`: from a request to an answer.

This is plain ASGI before all middleware: the router and FastAPI's dependencies take ten times as long as finding a hot
image, and the middleware as long again. Requests that need the middleware (with a credential, a body or a caller's
trace) go through it to the router, which also calls `respond`.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from functools import lru_cache

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, NotFound, NotMigrated, NotWhole
from imgpipe_orchestration.imaging.formats import MIME_OF, SHOWN_BY_BROWSERS
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.model import OUR_MEDIA_ID, MediaStatus
from imgpipe_orchestration.media.serving import decision, signing
from imgpipe_orchestration.media.serving.decision import Shelves, Wish
from imgpipe_orchestration.media.serving.hot import HotImages
from imgpipe_orchestration.media.steps.retrieve import original
from imgpipe_orchestration.media.store import StoredVariant
from imgpipe_orchestration.moderation.model import HELD, Held
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web import problems
from imgpipe_orchestration.web.headers import Head, has_it, secured, tagged
from imgpipe_orchestration.web.request_counts import RequestCounts
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

_PATH = re.compile(rf"/(serve|api/images)/({OUR_MEDIA_ID})", re.ASCII)
_NAMES_FORMAT = re.compile(rb"(?:^|[&?])format=")
_HEADERS = frozenset({b"accept", b"if-none-match", b"if-range", b"range", b"referer", b"user-agent"})
_FOR_THE_LAYERS = frozenset({b"authorization", b"content-length", b"transfer-encoding", b"traceparent"})
UNCACHED = {"Cache-Control": "no-store"}
ANY_ORIGIN = "*"
"""Not the requesting origin, or caches would have to keep a copy of an image for each."""
_REVALIDATED = "private, no-cache"
"""Of a URL that names another version than the image has: whoever follows an old page, or a new one sooner than we
heard of the change, must not keep these bytes under that name."""
PRIVATE_SECONDS = 3600
"""How long a browser may keep a private image; shared caches never may."""
_PLACEHOLDER = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 300 300" role="img" aria-label="Not ready yet">'
    b'<rect width="300" height="300" fill="#8a8f98" fill-opacity=".25"/>'
    b'<circle cx="150" cy="150" r="36" fill="none" stroke="#8a8f98" stroke-width="8" stroke-dasharray="150 76"/></svg>'
)
"""Shown until the image is ready, if browsers cannot show its original, and while nobody can tell what may be shown."""


@dataclass(frozen=True, slots=True)
class Address:
    """One of the two kinds of URLs; they differ in how long answers may be cached."""

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
    """Answers plain requests for images, in the same way as through the middleware; passes others on to `app`."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self.app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = asked_for(scope) if scope["type"] == "http" and scope["method"] in {"GET", "HEAD"} else None
        if asked is None or not _FOR_THE_LAYERS.isdisjoint([name for name, _ in scope["headers"]]):
            await self.app(scope, receive, send)
            return
        address, media_id = asked
        scope["route"] = address
        began, status = time.perf_counter(), 500  # the status of an unhandled error
        try:
            answer = await respond(scope, address, media_id)
            status = answer.status_code
            if not isinstance(answer, Ready):
                answer.raw_headers = secured(answer.raw_headers, scope["scheme"])
            await answer(scope, receive, send)
        finally:
            self._counts.note(scope, status, time.perf_counter() - began)


def asked_for(scope: Scope) -> tuple[Address, int] | None:
    """The kind of URL and the media id in a request's path; None for other paths."""
    match = _PATH.fullmatch(scope["path"])
    return (ADDRESSES[match[1]], int(match[2])) if match else None


async def respond(scope: Scope, address: Address, media_id: int) -> Response:
    """The image, a problem document, or a placeholder while the database or the object store is away. All vary with
    Accept unless the URL names a format, and pages of any origin may read them, because access depends on the URL alone
    (with a signature for a private image). All have the image's tag for CDNs."""
    vary = "" if _NAMES_FORMAT.search(scope["query_string"]) else "Accept"
    try:
        answer = await _found(scope, media_id, address.caching, vary)
        if isinstance(answer, Ready):
            return answer
    except ImgpipeError as error:
        answer = problems.reported(error, scope["path"])
        # Programs see the status, and people no broken image.
        if isinstance(error, BackendUnavailable) and not isinstance(error, NotMigrated):
            headers = UNCACHED | {"Retry-After": answer.headers["Retry-After"]}
            answer = Response(_PLACEHOLDER, answer.status_code, headers, "image/svg+xml")
    except Unsatisfiable as error:
        span = {"Content-Range": f"bytes */{error.size}"}
        answer = problems.problem(416, "Range not satisfiable", str(error), code="range", headers=span)
    if vary:
        answer.headers["Vary"] = vary
    answer.headers["Access-Control-Allow-Origin"] = ANY_ORIGIN
    answer.headers.update(tagged(f"media-{media_id}"))
    return answer


async def _found(scope: Scope, media_id: int, caching: str, vary: str, *, again: bool = False) -> Response:
    state = scope["app"].state
    hot: HotImages = state.hot
    wish = decision.read(scope["query_string"])
    asked = _asked(scope)
    accept = asked.get(b"accept")
    manifest = hot.manifests.peek(media_id) or await hot.manifest(media_id)
    if manifest.held:
        raise Held(HELD)
    if manifest.private:
        seconds = signing.check(state.services.settings, media_id, wish.signature, wish.parameters)
        caching = f"private, max-age={min(seconds, PRIVATE_SECONDS)}"
    if not manifest.variants:
        async with hot.originals:
            return await asyncio.to_thread(_not_ready, state.services, media_id, wish, accept)
    if wish.version not in (None, manifest.version):
        caching = _REVALIDATED
    decided = manifest.decide(wish, accept)
    if not again and not wish.explain:
        state.callers.note(media_id, decided.variant, asked.get(b"referer", ""), asked.get(b"user-agent", ""))
    variant = decided.variant
    etag = f'"{variant.sha256[:32]}"'
    if has_it(asked.get(b"if-none-match"), etag) and not wish.explain:
        return Ready(_head(scope["scheme"], media_id, etag, caching, vary), status=304)
    try:
        data = hot.bytes.peek(variant.object_key) or await hot.content(variant)
    except (NotFound, NotWhole) as fault:
        if again:
            instead = _stood_in(hot, manifest.variants, wish, accept, variant, fault)
        else:  # the image may have been made again since its manifest was read, and the old objects deleted
            hot.forget(media_id)
            instead = _found(scope, media_id, caching, vary, again=True)
        return await instead
    if wish.explain:
        return JSONResponse(decided.explained(wish, accept), headers=UNCACHED)
    is_head = scope["method"] == "HEAD"
    part = wanted(asked.get(b"range"), len(data)) if asked.get(b"if-range", etag) == etag and not is_head else None
    sent = data if part is None else data[part[0] : part[1] + 1]
    head = _head(scope["scheme"], media_id, etag, caching, vary, MIME_OF[variant.format], len(sent))
    if part is None:
        return Ready(head, b"" if is_head else sent)
    span = (b"content-range", f"bytes {part[0]}-{part[1]}/{len(data)}".encode())
    return Ready([*head, span], sent, status=206)


def _asked(scope: Scope) -> dict[bytes, str]:
    """The request's headers that matter; repeated ones are joined to a list (RFC 9110, section 5.3)."""
    found: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in _HEADERS:
            text = value.decode("latin-1")
            found[name] = f"{found[name]}, {text}" if name in found else text
    return found


class Ready(Response):
    """An answer with an encoded head."""

    def __init__(self, head: Head, body: bytes = b"", status: int = 200) -> None:
        self.status_code = status
        self.raw_headers = head
        self.body = body
        self.background = None


@lru_cache(maxsize=4096)
def _head(scheme: str, media_id: int, etag: str, caching: str, vary: str, mime: str = "", length: int = 0) -> Head:
    """The head of an image; without type and length that of a 304. It is cached and must not be changed."""
    fields = {"cache-control": caching, "etag": etag, "accept-ranges": "bytes", "vary": vary, "content-type": mime}
    fields |= {"access-control-allow-origin": ANY_ORIGIN, **tagged(f"media-{media_id}")}
    if mime:
        fields["content-length"] = str(length)
    return secured([(name.encode(), value.encode()) for name, value in fields.items() if value], scheme)


async def _stood_in(
    hot: HotImages, variants: Shelves, wish: Wish, accept: str | None, lost: StoredVariant, fault: NotFound | NotWhole
) -> Response:
    """Another format or size in place of a variant whose object is missing or damaged: uncached and without a
    validator, until the garbage collection has had it made again."""
    hot.lost += not wish.explain
    gone = [lost]
    while True:
        try:
            decided = decision.decide_without(gone, variants, wish, accept)
        except NotFound:
            if isinstance(fault, NotWhole):
                raise fault from None
            raise NotFound("The files of this image are lost.", detail=fault.public) from None
        try:
            data = await hot.content(decided.variant)
        except (NotFound, NotWhole):
            gone.append(decided.variant)
            continue
        if wish.explain:
            return JSONResponse(decided.explained(wish, accept), headers=UNCACHED)
        log.warning("another variant served", extra={"lost": lost.object_key, "error": fault.public})
        return Response(data, media_type=MIME_OF[decided.variant.format], headers=UNCACHED)


def _not_ready(services: Services, media_id: int, wish: Wish, accept: str | None) -> Response:
    """The answer before the variants exist: the original, or a placeholder if browsers cannot show it or we do not have
    it yet; uncached."""
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
    if media.held:  # since its manifest was read
        raise Held(HELD)
    if media.private:
        signing.check(services.settings, media_id, wish.signature, wish.parameters)
    if media.status is MediaStatus.FAILED:
        raise NotFound(f"Media {media_id} could not be processed: {media.error}")
    showable = media.mime_type in SHOWN_BY_BROWSERS
    if wish.explain:
        return JSONResponse(decision.explained_meanwhile(wish, accept, original=showable), headers=UNCACHED)
    if showable:
        try:  # no visitor waits for another main API, which may take minutes to answer
            return Response(original(services, media, ask=False), media_type=media.mime_type, headers=UNCACHED)
        except NotFound:
            if not services.foreign_main_api:
                raise
    return Response(_PLACEHOLDER, media_type="image/svg+xml", headers=UNCACHED)


# --- the byte range in a Range header (RFC 9110, section 14) ---------------------------------------------------------


_ONE_RANGE = re.compile(r"bytes\s*=\s*(\d{0,20})\s*-\s*(\d{0,20})\s*", re.IGNORECASE | re.ASCII)


class Unsatisfiable(ValueError):
    """The range is outside of the image, which has `size` bytes (416)."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The image has {size} bytes.")
        self.size = size


def wanted(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of the requested part; None for the whole.

    Several ranges, other units and invalid headers are ignored, as the RFC allows; the answer is then a 200.

    Raises:
        Unsatisfiable: no byte of the range exists.
    """
    match = _ONE_RANGE.fullmatch(header.strip()) if header else None
    if match is None or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:  # the last N bytes
        first, last = str(max(0, size - int(last))), ""
    if last and int(last) < int(first):
        return None  # an invalid range
    if int(first) >= size:
        raise Unsatisfiable(size)
    return int(first), min(int(last or size), size - 1)
