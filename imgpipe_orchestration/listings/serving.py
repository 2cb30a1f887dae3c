"""Answers a listing image's URL: with the WebP, until then the original, otherwise a placeholder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

from imgpipe_orchestration.errors import BackendUnavailable, NotFound, NotWhole
from imgpipe_orchestration.imaging.formats import SHOWN_BY_BROWSERS
from imgpipe_orchestration.listings import store
from imgpipe_orchestration.listings.model import Status, handed_out
from imgpipe_orchestration.listings.steps import CACHE_SECONDS
from imgpipe_orchestration.moderation.model import HELD, Held
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import Deleted
from imgpipe_orchestration.storage.rows import autocommit
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.headers import has_it

log = logger(__name__)

_PLACEHOLDER_HEIGHT = 640
_PLACEHOLDER_GREY = (226, 228, 231)
_NO_STORE = "no-store"


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer with an image, or with 304 and none."""

    status: int
    body: bytes
    content_type: str
    cache_control: str
    etag: str = ""
    tag: str = ""
    retry_after: int = 0


def reply(services: Services, name: str, *, if_none_match: str = "") -> Reply:
    """The WebP once it is made, until then the original, or a placeholder of its shape. The same when the WebP is lost
    or damaged in the object store, until the garbage collection has it made again.

    While the object store or the database is away the answer is a 503 with the placeholder as its body: programs see
    the error, and people see no broken image. Without the database nobody knows whether it was deleted or is held.

    Raises:
        Deleted: it was deleted.
        Held: it is held back.
        NotFound: the name was never handed out, or its image failed for good (with the reason).
    """
    unknown = NotFound(f"There is no listing image {name!r}.")
    if not handed_out(name):
        raise unknown
    try:
        with autocommit(services.engine) as connection:
            image = store.served(connection, name)
            address = deletions.digest(services.settings.secret_key, name)
            if image is None and deletions.was_at(connection, address):
                raise Deleted("This image was deleted.")
    except BackendUnavailable as away:
        return _stand_in(name, away, _PLACEHOLDER_HEIGHT, _PLACEHOLDER_HEIGHT)
    if image is None:
        raise unknown
    if image.held:
        raise Held(HELD)
    if image.webp_sha256 is None and image.status is Status.FAILED:
        raise NotFound(f"This image could not be processed: {image.error}")
    try:
        if image.webp_sha256 is not None:
            try:
                return _finished(services, image, if_none_match)
            except (NotFound, NotWhole) as lost:
                log.warning("original served", extra={"file_name": name, "error": lost.public})
        return _unfinished(services, image)
    except BackendUnavailable as away:
        return _stand_in(name, away, *_placeholder_size(image.width, image.height))


def _stand_in(name: str, away: BackendUnavailable, width: int, height: int) -> Reply:
    log.warning("placeholder served", extra={"file_name": name, "error": away.detail})
    return Reply(503, placeholder(width, height), "image/webp", _NO_STORE, retry_after=5)


def _finished(services: Services, image: store.Served, if_none_match: str) -> Reply:
    etag = f'"{image.webp_sha256}"'
    caching = f"public, max-age={CACHE_SECONDS}"
    tag = f"listing-{image.id}"
    if has_it(if_none_match, etag):
        return Reply(304, b"", "image/webp", caching, etag, tag)
    data = services.listings_bucket.get(image.file_name, size=image.webp_bytes)
    return Reply(200, data, "image/webp", caching, etag, tag)


def _unfinished(services: Services, image: store.Served) -> Reply:
    if image.content_type in SHOWN_BY_BROWSERS:
        try:
            data = services.listings_bucket.get(image.original_key, size=image.bytes)
            return Reply(200, data, image.content_type, _NO_STORE)
        except (NotFound, NotWhole) as lost:  # the worker tries to read it too, and fails the image in the end
            log.warning("placeholder served", extra={"file_name": image.file_name, "error": lost.public})
    return Reply(200, placeholder(*_placeholder_size(image.width, image.height)), "image/webp", _NO_STORE)


def _placeholder_size(width: int, height: int) -> tuple[int, int]:
    from imgpipe_orchestration.imaging.geometry import fit_within

    return fit_within(width, height, 4 * _PLACEHOLDER_HEIGHT, _PLACEHOLDER_HEIGHT)


@lru_cache(maxsize=64)
def placeholder(width: int, height: int) -> bytes:
    """A plain grey WebP of the image's own shape, so that a page does not jump when the image comes."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height), _PLACEHOLDER_GREY).save(file, "WEBP", quality=50, method=0)
    return file.getvalue()
