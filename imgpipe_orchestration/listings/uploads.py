"""Accepts uploads: stores the bytes, then commits the rows."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from imgpipe_orchestration.errors import BackendUnavailable, BadImage, BadInput, ImgpipeError, Retryable, TooLarge
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.listings import model, store
from imgpipe_orchestration.storage.jsonb import storable_text
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.web.idempotency import KeyedRequest
from imgpipe_orchestration.wiring.services import Services

_PARALLEL_PUTS = 8


@dataclass(frozen=True, slots=True)
class Sent:
    """A file as it was sent. The name is only shown; the format is read from the bytes."""

    name: str
    read: Callable[[], bytes]
    """Its bytes, once more each time: a hundred files are not in memory together."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that was not queued, and why."""

    name: str
    error: ImgpipeError


class NothingUsable(BadImage):
    """None of the files is an image we can use; `rejected` says why of each."""

    def __init__(self, rejected: Sequence[Rejected]) -> None:
        super().__init__("; ".join(f"{one.name}: {one.error.public}" for one in rejected))
        self.rejected = tuple(rejected)


def upload(
    services: Services,
    title: str,
    files: Sequence[Sent],
    *,
    user_id: int | None = None,
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """Queue the usable ones among `files` and answer with the document's JSON.

    A request repeated under its `idempotency_key` gets the answer it got before, and queues nothing.

    Raises:
        NothingUsable: no file is an image we can use.
        TooLarge: too many files.
        BadInput: no file, or the key was used for another request.
        BackendUnavailable: object store or database are away; nothing was accepted.
        Retryable: see `_write`; nothing was accepted.
    """
    if not files:
        raise BadInput("Send at least one image in the field `images`.", field="images")
    if len(files) > model.MOST_IMAGES:
        raise TooLarge(f"images in this upload: {len(files)}; the limit is {model.MOST_IMAGES}")
    title = storable_text(title)
    uploader = "" if user_id is None else str(user_id)
    request = _request_sha256(title, files) if idempotency_key else ""
    keyed = KeyedRequest(services.engine, "listings", idempotency_key, request, caller=uploader)
    if given := keyed.given_before():
        return given

    listing_id = uuid4()
    usable: list[tuple[store.NewImage, Sent]] = []
    rejected: list[Rejected] = []
    for file in files:
        try:
            usable.append((_described(file, title, listing_id, user_id, services.settings.upload_max_bytes), file))
        except (BadImage, TooLarge) as error:
            rejected.append(Rejected(storable_text(file.name), error))
    if not usable:
        raise NothingUsable(rejected)
    _keep_originals(services.listings_bucket, usable)
    # When the database goes away during the commit, nobody knows whether the rows are there. So the originals are kept
    # on errors, and the garbage collection removes those that no row names.
    images = [image for image, _ in usable]
    keys = [image.original_key for image in images]
    try:
        answer = keyed.once(lambda connection: _write(connection, services, images, rejected))
    except BadInput:  # another request was committed under the key meanwhile
        services.listings_bucket.discard(keys)
        raise
    if answer["data"]["listing_id"] != str(listing_id):  # this one was, sent twice
        services.listings_bucket.discard(keys)
    return answer


def _request_sha256(title: str, files: Sequence[Sent]) -> str:
    """The request's identity: its title, and the bytes of its files in their order."""
    digest = hashlib.sha256(title.encode())
    for file in files:
        digest.update(hashlib.sha256(file.read()).digest() + file.size.to_bytes(8, "big"))
    return digest.hexdigest()


def _described(file: Sent, title: str, listing_id: UUID, user_id: int | None, max_bytes: int) -> store.NewImage:
    """The row of a file, by its header (about a millisecond).

    Raises:
        BadImage, TooLarge: see `imaging.reading.sniff`.
    """
    if file.size > max_bytes:
        raise TooLarge(f"the file has {file.size:,} bytes, the limit is {max_bytes:,}")
    original = sniff(file.read())
    width, height = original.upright_size
    public_id = uuid4()
    return store.NewImage(
        public_id=public_id,
        listing_id=listing_id,
        user_id=user_id,
        listing_title=title.strip(),
        file_name=model.file_name(title, public_id),
        original_name=storable_text(file.name),
        original_key=f"originals/{public_id}",  # the public files lie at the root
        content_type=original.mime,
        bytes=file.size,
        width=width,
        height=height,
    )


def _keep_originals(bucket: Bucket, usable: Sequence[tuple[store.NewImage, Sent]]) -> None:
    """Store all originals, or none.

    Raises:
        BackendUnavailable: the object store is away.
    """

    def put(one: tuple[store.NewImage, Sent]) -> None:
        bucket.put(one[0].original_key, one[1].read(), content_type=one[0].content_type)

    try:
        with ThreadPoolExecutor(min(_PARALLEL_PUTS, len(usable))) as pool:
            list(pool.map(put, usable))
    except BackendUnavailable:
        bucket.discard(image.original_key for image, _ in usable)
        raise


def _write(
    connection: Connection, services: Services, images: Sequence[store.NewImage], rejected: Sequence[Rejected]
) -> dict[str, Any]:
    """Write the rows and queue items of an upload; returns its answer.

    Raises:
        Retryable: an image of the same title has an id of the same first 8 digits; nothing is accepted.
    """
    items = store.add(connection, images, held=services.settings.moderation == "hold")
    if len(items) < len(images):
        raise Retryable("Two images of this title got the same file name. Nothing was accepted; send it again.")
    # Last, because other uploads of the same users wait from here to the commit.
    services.claims.enqueue(connection, store.QUEUE, items)
    return _answer(services.settings.listings_public_url, images, rejected)


def _answer(base: str, images: Sequence[store.NewImage], rejected: Sequence[Rejected]) -> dict[str, Any]:
    """The document's JSON; `rejected` is there only where something was."""
    data: dict[str, Any] = {
        "message": f"{len(images)} image{'' if len(images) == 1 else 's'} queued for processing",
        "image_count": len(images),
        "images": [
            {
                "id": str(image.public_id),
                "url": f"{base}/{image.file_name}",
                "file_name": image.file_name,
                "status": model.Status.PENDING.value,
            }
            for image in images
        ],
        "status": "processing",
        "listing_id": str(images[0].listing_id),
    }
    if rejected:
        data["rejected"] = reasons(rejected)
    return {"status": "success", "data": data}


def reasons(rejected: Sequence[Rejected]) -> list[dict[str, str]]:
    """The files that were not queued, as JSON."""
    return [{"file_name": one.name, "error": one.error.public, "code": one.error.code} for one in rejected]
