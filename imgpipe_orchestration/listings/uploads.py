"""Accepting images: an upload counts once its bytes are in object storage and its row is committed, not before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import BackendUnavailable, BadImage, BadInput, ImgpipeError, TooLarge
from imgpipe_orchestration.imaging.limits import Limits
from imgpipe_orchestration.imaging.opening import open_original
from imgpipe_orchestration.listings import model, store
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.objects import Bucket
from imgpipe_orchestration.storage.rows import transaction

log = logger(__name__)

_PARALLEL_PUTS = 8


@dataclass(frozen=True, slots=True)
class Sent:
    """A file as it came. Its name is only ever shown; its bytes decide what it is."""

    name: str
    data: bytes
    size: int
    """Bytes; `data` may be left empty where this is past the limit."""


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


class _AnsweredMeanwhile(Exception):
    """Another request under the same key was committed first."""


def upload(
    backends: Services,
    title: str,
    files: Sequence[Sent],
    *,
    user_id: int | None = None,
    idempotency_key: str | None = None,
    new_id: Callable[[], UUID] = uuid4,
) -> dict[str, Any]:
    """Queue the usable ones among `files` and answer with the document's JSON.

    A request repeated under its `idempotency_key` gets the answer it got before, and queues nothing.

    Raises:
        NothingUsable: no file is an image we can use.
        TooLarge: too many files.
        BadInput: no file, or the key was used for another request.
        BackendUnavailable: object store or database are away; nothing was accepted.
    """
    if not files:
        raise BadInput("Send at least one image in the field `images`.", field="images")
    most = backends.settings.listings_max_images
    if len(files) > most:
        raise TooLarge(f"{len(files)} images were sent, the limit is {most} in one upload")
    title = _storable(title)
    uploader = "" if user_id is None else str(user_id)
    request = _request_sha256(title, files) if idempotency_key else ""
    if idempotency_key:
        given = _given_before(backends, uploader, idempotency_key, request)
        if given is not None:
            return given

    usable, rejected = _inspected(files, title, user_id, backends.settings.upload_max_bytes, new_id)
    if not usable:
        raise NothingUsable(rejected)
    _keep_originals(backends.listings_bucket, usable)
    images = [image for image, _ in usable]
    trace = str(tracing.current() or "")  # others' thread may write the rows
    accepted = _Accepted(backends.claims, store.queue_of(backends.settings), images, new_id, trace)

    def answer(images: Sequence[store.NewImage]) -> dict[str, Any]:
        return _answer(backends.settings.listings_public_url, images, rejected)

    # When the database goes away in the middle of a commit nobody knows whether the rows are there. So the originals
    # stay, and the daily sweep takes those that no row names.
    if not idempotency_key:
        return answer(backends.gathered.commit(_write, accepted))
    try:
        with transaction(backends.engine) as connection:
            (images,) = _write(connection, [accepted])
            given = answer(images)
            if not store.keep_answer(connection, uploader, idempotency_key, store.Answer(request, given)):
                raise _AnsweredMeanwhile
        return given
    except _AnsweredMeanwhile:
        _forget(backends.listings_bucket, [image.original_key for image, _ in usable])
        given_before = _given_before(backends, uploader, idempotency_key, request)
        assert given_before is not None  # noqa: S101 - keeping ours waited until that one was committed
        return given_before


def _request_sha256(title: str, files: Sequence[Sent]) -> str:
    """What makes two requests the same: the title, and the bytes of the files in their order."""
    digest = hashlib.sha256(title.encode())
    for file in files:
        digest.update(hashlib.sha256(file.data).digest() + file.size.to_bytes(8, "big"))
    return digest.hexdigest()


def _given_before(backends: Services, uploader: str, key: str, request: str) -> dict[str, Any] | None:
    with transaction(backends.engine) as connection:
        given = store.answer(connection, uploader, key)
    if given is None:
        return None
    if given.request_sha256 != request:
        raise BadInput("This Idempotency-Key was used for another upload; take a new one.", field="Idempotency-Key")
    return given.body


def _inspected(
    files: Sequence[Sent], title: str, user_id: int | None, max_bytes: int, new_id: Callable[[], UUID]
) -> tuple[list[tuple[store.NewImage, bytes]], list[Rejected]]:
    usable, rejected = [], []
    for file in files:
        try:
            usable.append((_described(file, title, user_id, max_bytes, new_id()), file.data))
        except (BadImage, TooLarge) as error:
            rejected.append(Rejected(file.name, error))
    return usable, rejected


def _described(file: Sent, title: str, user_id: int | None, max_bytes: int, public_id: UUID) -> store.NewImage:
    """What the header says; costs about a millisecond.

    Raises:
        BadImage, TooLarge: see `imaging.sniff`.
    """
    if file.size > max_bytes:
        raise TooLarge(f"the file has {file.size:,} bytes, the limit is {max_bytes:,}")
    original = open_original(file.data, Limits(max_bytes=max_bytes))
    with original.image:
        width, height = original.upright_size
    return store.NewImage(
        public_id=public_id,
        user_id=user_id,
        listing_title=title,
        file_name=model.file_name(title, public_id),
        original_name=_storable(file.name),
        original_key=model.original_key(public_id),
        content_type=original.sniffed.mime,
        bytes=file.size,
        width=width,
        height=height,
    )


def _storable(words: str) -> str:
    """Words as PostgreSQL and UTF-8 can hold them: without NUL and without halves of surrogate pairs."""
    return words.replace("\0", "").encode("utf-8", "replace").decode()


def _keep_originals(bucket: Bucket, usable: Sequence[tuple[store.NewImage, bytes]]) -> None:
    """All of them, or none.

    Raises:
        BackendUnavailable: the object store is away.
    """

    def put(one: tuple[store.NewImage, bytes]) -> None:
        bucket.put(one[0].original_key, one[1], content_type=one[0].content_type)

    try:
        if len(usable) == 1:
            put(usable[0])
            return
        with ThreadPoolExecutor(min(_PARALLEL_PUTS, len(usable))) as pool:
            for _ in pool.map(put, usable):
                pass
    except BackendUnavailable:
        _forget(bucket, [image.original_key for image, _ in usable])
        raise


def _forget(bucket: Bucket, keys: Sequence[str]) -> None:
    """Delete originals that no row will name; what cannot be deleted now is the daily sweep's."""
    try:
        for key in keys:
            bucket.delete(key)
    except BackendUnavailable as error:
        log.warning("originals left for the sweep", extra={"keys": len(keys), "error": error.detail})


@dataclass(frozen=True, slots=True)
class _Accepted:
    """An upload whose originals are kept, and what writing its rows takes."""

    claims: Claims
    queue: Queue
    images: Sequence[store.NewImage]
    new_id: Callable[[], UUID]
    trace: str


def _write(connection: Connection, uploads: Sequence[_Accepted]) -> list[list[store.NewImage]]:
    """Write the rows of some uploads and their places in the queue; returns the images as they were written.

    An image whose file name is taken (the first 8 digits of two ids met, under one title) gets another id; its original
    stays where it is.
    """
    written = [list(upload.images) for upload in uploads]
    missing = [(number, index) for number, images in enumerate(written) for index in range(len(images))]
    claims, queue = uploads[0].claims, uploads[0].queue
    items: list[Item] = []
    while missing:
        images = [written[number][index] for number, index in missing]
        added = store.add(connection, images, max_retries=queue.max_attempts)
        items += [
            replace(added[image.public_id], trace=uploads[number].trace)
            for (number, _), image in zip(missing, images, strict=True)
            if image.public_id in added
        ]
        missing = [(number, index) for number, index in missing if written[number][index].public_id not in added]
        for number, index in missing:
            public_id = uploads[number].new_id()
            name = model.file_name(written[number][index].listing_title, public_id)
            written[number][index] = replace(written[number][index], public_id=public_id, file_name=name)
    # Last: from here to the commit others who upload for the same users wait.
    claims.enqueue(connection, queue, items)
    return written


def _answer(base: str, images: Sequence[store.NewImage], rejected: Sequence[Rejected]) -> dict[str, Any]:
    """The document's JSON; `rejected` is there only where something was."""
    data: dict[str, Any] = {
        "message": model.queued_message(len(images)),
        "image_count": len(images),
        "images": [
            {
                "id": str(image.public_id),
                "url": model.public_url(base, image.file_name),
                "file_name": image.file_name,
                "status": model.Status.PENDING.value,
            }
            for image in images
        ],
        "status": "processing",
    }
    if rejected:
        data["rejected"] = reasons(rejected)
    return {"status": "success", "data": data}


def reasons(rejected: Sequence[Rejected]) -> list[dict[str, str]]:
    """The files that were not queued, as JSON."""
    return [{"file_name": one.name, "error": one.error.public, "code": one.error.code} for one in rejected]
