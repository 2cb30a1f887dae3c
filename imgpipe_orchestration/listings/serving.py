"""Answers a listing image's URL: with the WebP, until then the original, otherwise a placeholder."""

import io
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, Request, Response
from PIL import Image
from sqlalchemy import Row

from imgpipe_orchestration.errors import BackendUnavailable, NotFound, NotWhole
from imgpipe_orchestration.imaging.formats import SHOWN_BY_BROWSERS
from imgpipe_orchestration.imaging.geometry import fit_within
from imgpipe_orchestration.listings import store
from imgpipe_orchestration.listings.model import FILE_NAME, Status
from imgpipe_orchestration.listings.steps import CACHE_SECONDS
from imgpipe_orchestration.moderation.model import HELD, Held
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Deleted
from imgpipe_orchestration.storage.rows import autocommit
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.auth import ServicesDep
from imgpipe_orchestration.web.headers import has_it, tagged
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)
router = APIRouter(tags=["listings"])

_PLACEHOLDER_HEIGHT = 640
_PLACEHOLDER_GREY = (226, 228, 231)


@router.get(
    "/storage/v1/object/public/listing-images/{file_name}",
    response_class=Response,
    responses={
        200: {
            "content": {"image/webp": {}, "image/*": {}},
            "description": "The WebP, or until it is there the original",
        },
        304: {"description": "The WebP you have is the one we have"},
        404: {"description": "Never handed out, or failed for good: the reason is in the problem"},
        503: {"content": {"image/webp": {}}, "description": "Our storage is unavailable; the body is a placeholder"},
    },
)
def listing_image(request: Request, services: ServicesDep, file_name: str) -> Response:
    """The image behind a URL that an upload was answered with."""
    # The WebP once it is made, until then the original, or a placeholder of its shape. The same when the WebP is lost
    # or damaged in the object store, until the garbage collection has it made again.
    #
    # While the object store or the database is away the answer is a 503 with the placeholder as its body: programs see
    # the error, and people see no broken image. Without the database nobody knows whether it was deleted or is held.
    unknown = NotFound(f"There is no listing image {file_name!r}.")
    if not FILE_NAME.fullmatch(file_name):
        raise unknown
    try:
        with autocommit(services.engine) as connection:
            image = store.served(connection, file_name)
            if image is None and deletions.was_at(connection, services.settings.digest_keys, file_name):
                raise Deleted("This image was deleted.")
    except BackendUnavailable as away:
        return _stand_in(file_name, away, _PLACEHOLDER_HEIGHT, _PLACEHOLDER_HEIGHT)
    if image is None:
        raise unknown
    if image.held:
        raise Held(HELD)
    if image.webp_sha256 is None and image.status == Status.FAILED:
        raise NotFound(f"This image could not be processed: {image.error}")
    try:
        if image.webp_sha256 is not None:
            try:
                return _finished(services, image, request.headers.get("if-none-match", ""))
            except (NotFound, NotWhole) as lost:
                log.warning("original served", extra={"file_name": file_name, "error": lost.public})
        return _unfinished(services, image)
    except BackendUnavailable as away:
        return _stand_in(file_name, away, *_placeholder_size(image.width, image.height))


def _answer(status: int, data: bytes, content_type: str, caching: str = "no-store", **headers: str) -> Response:
    # These are strangers' bytes on our own origin: browsers must neither guess their type nor run anything in them.
    safely = {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    }
    return Response(data, status, {"Cache-Control": caching, **safely, **headers}, content_type)


def _stand_in(name: str, away: BackendUnavailable, width: int, height: int) -> Response:
    log.warning("placeholder served", extra={"file_name": name, "error": away.detail})
    return _answer(503, placeholder(width, height), "image/webp", **{"Retry-After": "5"})


def _finished(services: Services, image: Row[Any], if_none_match: str) -> Response:
    etag = f'"{image.webp_sha256}"'
    status, data = 304, b""
    if not has_it(if_none_match, etag):
        status, data = 200, services.listings_bucket.get(image.file_name, size=image.webp_bytes)
    caching = f"public, max-age={CACHE_SECONDS}"
    return _answer(status, data, "image/webp", caching, ETag=etag, **tagged(f"listing-{image.id}"))


def _unfinished(services: Services, image: Row[Any]) -> Response:
    if image.content_type in SHOWN_BY_BROWSERS:
        try:
            data = services.listings_bucket.get(image.original_key, size=image.bytes)
            return _answer(200, data, image.content_type)
        except (NotFound, NotWhole) as lost:  # the worker tries to read it too, and fails the image in the end
            log.warning("placeholder served", extra={"file_name": image.file_name, "error": lost.public})
    return _answer(200, placeholder(*_placeholder_size(image.width, image.height)), "image/webp")


def _placeholder_size(width: int, height: int) -> tuple[int, int]:
    return fit_within(width, height, 4 * _PLACEHOLDER_HEIGHT, _PLACEHOLDER_HEIGHT)


@lru_cache(maxsize=64)
def placeholder(width: int, height: int) -> bytes:
    """A plain grey WebP of the image's own shape, so that a page does not jump when the image comes."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), _PLACEHOLDER_GREY).save(file, "WEBP", quality=50, method=0)
    return file.getvalue()
