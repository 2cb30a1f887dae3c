"""Objects in S3: operations on a bucket, with the libraries' errors turned into ours.

obstore reads and writes objects, because it needs a sixth of boto3's time. boto3 does what obstore can't: create
buckets, sign the size of a direct upload, list keys of any form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadInput,
    ImgpipeError,
    NotFound,
    NotWhole,
    OutOfSpace,
    SettingsError,
)
from imgpipe_orchestration.partners.links import redirected
from imgpipe_orchestration.storage.made_once import made_once
from imgpipe_orchestration.telemetry.logs import logger

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore import GetResult
    from obstore.store import S3Store

log = logger(__name__)

MAX_KEY_BYTES = 1024
"""Longest key of S3 (Amazon S3 user guide, "Naming Amazon S3 objects")."""

_ABSENT = {"404", "NoSuchKey", "NotFound"}
_HOPELESS = {"KeyTooLongError", "EntityTooLarge", "InvalidURI", "MetadataTooLarge", "XMinioInvalidObjectName"}
"""Refusals that no further try can change. After others, such as wrong credentials, work waits for an operator."""

_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
"""Codes of MinIO and Ceph when there is no room; for the embedded rclone see `ObjectStore.check_room`."""
_FULL_STATUS = "507 Insufficient Storage"
"""The status of others, as obstore tells it; their codes differ, and a proxy sends none."""

_NOT_THERE = "The object store has no such object."
_NO_ROOM = "The object store has no room left; nothing was stored."
_SPARE = 256 * 1024
"""Bytes that must be free beside an object: a refused one is gone when we look, and others are written meanwhile."""

_OF_A_LISTING = {"Name", "IsTruncated", "Contents"}
"""What a listing has some of. botocore reads other well-formed XML, such as a web page, as one of an empty bucket."""

_CONNECT_SECONDS, _READ_SECONDS = 3, 30
_MOST_TRIES = 3


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's head: size in bytes, time of the last write, and what a listing does not have: the type and the
    user metadata, names in lower case."""

    key: str
    size: int
    modified: datetime | None
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


def _refuse_redirect(response: tuple[Any, Any] | None, **_: Any) -> None:
    """Gets botocore's answers before botocore does: of an address that redirects it would ask the bucket's region, be
    redirected, and ask again until its stack is full."""
    if response is not None and 300 <= response[0].status_code < 400:
        how = redirected(response[0].headers.get("Location"))
        raise BackendUnavailable(f"The object store {how}: check S3_ENDPOINT and S3_REGION.")


class ObjectStore:
    """The S3 at one endpoint; its clients are made on first use and shared by threads."""

    def __init__(
        self, *, endpoint: str, access_key: str, secret_key: str, region: str = "us-east-1", folder: Path | None = None
    ) -> None:
        """
        Args:
            folder: where the embedded store keeps its objects. It does not say that its disk is full.
        """
        self._folder = folder
        self._endpoint = endpoint
        self._access_key = access_key
        self._secret_key = secret_key
        self._region = region
        self._buckets: dict[str, Bucket] = {}

    @property
    def endpoint(self) -> str:
        if not self._endpoint:
            raise SettingsError("S3_ENDPOINT is not set: start `imgpipe up`, or point it at an S3")
        return self._endpoint

    def check_room(self, size: int) -> None:
        """
        Raises:
            OutOfSpace: the embedded store has no room for so many bytes. Others say so themselves.
        """
        if self._folder is not None and self._folder.is_dir() and disk_usage(self._folder).free < size + _SPARE:
            raise OutOfSpace(_NO_ROOM, detail=f"{self._folder} is full")

    @made_once
    def client(self) -> S3Client:
        """boto3's client, for rare operations. Making one is not thread-safe, and `made_once` has a lock."""
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key,
            region_name=self._region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                retries={"mode": "standard", "total_max_attempts": _MOST_TRIES},
                # Not every S3 knows the newer checksum headers, and our manifests have content hashes.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        client.meta.events.register_first("needs-retry.s3", _refuse_redirect)
        return client

    def objects(self, bucket: str) -> S3Store:
        """obstore's client of a bucket, for reading and writing objects."""
        from obstore.store import S3Store

        return S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=self._access_key,
            secret_access_key=self._secret_key,
            region=self._region,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": True,
                "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
                "read_timeout": timedelta(seconds=_READ_SECONDS),
                "timeout": timedelta(minutes=5),
                "user_agent": "imgpipe",
            },
            retry_config={
                "max_retries": _MOST_TRIES - 1,
                "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2)},
                "retry_timeout": timedelta(seconds=_READ_SECONDS),
            },
        )

    def bucket(self, name: str) -> Bucket:
        """A bucket; all callers share its connections."""
        return self._buckets.setdefault(name, Bucket(self, name))


class Bucket:
    """One bucket.

    Keys are folders and a name, such as `library/user_7/product/img/12.avif`, without empty parts, `.` and `..`: some
    servers refuse those and others resolve them. Nothing is ever stored under such a key, so reading it finds nothing.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store = store
        self.name = name

    @made_once
    def _objects(self) -> S3Store:
        return self.store.objects(self.name)

    def ensure(self) -> None:
        """Create the bucket if it does not exist."""
        try:
            with _translated(self.name):
                self.store.client.head_bucket(Bucket=self.name)
        except NotFound:
            client = self.store.client
            there = client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou
            region = client.meta.region_name  # AWS wants it in the request, but refuses us-east-1 there
            where: Any = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
            with _translated(self.name, asks_for_it=False), suppress(*there):
                client.create_bucket(Bucket=self.name, **where)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str,
        cache_control: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write `data` under `key`, replacing what was there.

        Raises:
            BadInput: the key, the type or the metadata cannot be stored.
            BackendUnavailable: the store cannot be reached; OutOfSpace: it is full.
        """
        if not _usable(key):
            raise BadInput(f"{key!r} cannot be the key of an object.", field="key")
        attributes = {"Content-Type": content_type, **(metadata or {})}
        if cache_control:
            attributes["Cache-Control"] = cache_control
        for name, value in attributes.items():
            if not fits_header(value):
                raise BadInput(f"{name!r} of {key!r} cannot be stored as asked.", field=name)
        import obstore

        try:
            with _translated(key, asks_for_it=False):
                obstore.put(self._objects, key, data, attributes=attributes, use_multipart=False)
        except BackendUnavailable:
            self.store.check_room(len(data))
            raise

    def get(self, key: str, *, size: int | None = None) -> bytes:
        """The whole object; `size` is how many bytes were stored, if known.

        Raises:
            NotFound: no such key.
            NotWhole: it has another size.
            BackendUnavailable: the store cannot be reached.
        """
        return _whole(self.get_with_head(key)[0], key, size)

    def get_with_head(self, key: str) -> tuple[bytes, StoredObject]:
        """The whole object and its head, in one request."""
        with _translated(key):
            answer = self._ask(key)
            return answer.bytes().to_bytes(), _head(key, answer)

    async def get_async(self, key: str, *, size: int | None = None) -> bytes:
        """As `get`, on the running event loop."""
        import obstore

        with _translated(key):
            answer = _of_a_store(await obstore.get_async(self._objects, _checked(key)))
            data = (await answer.bytes_async()).to_bytes()
        return _whole(data, key, size)

    def head(self, key: str) -> StoredObject | None:
        """The object's head; None where there is no such key."""
        try:
            with _translated(key):
                return _head(key, self._ask(key, head=True))
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        """Delete the object if it exists."""
        self.delete_all([key])

    def delete_all(self, keys: Iterable[str]) -> None:
        """Delete the objects that exist, a thousand per request."""
        import obstore

        usable = [key for key in keys if _usable(key)]
        if usable:  # otherwise no object store is needed
            with _translated(self.name, asks_for_it=False):
                obstore.delete(self._objects, usable)

    def discard(self, keys: Iterable[str]) -> None:
        """Delete objects that no row names. If that fails, the garbage collection will."""
        unnamed = list(keys)
        try:
            self.delete_all(unnamed)
        except ImgpipeError as error:
            log.warning("left to the garbage collection", extra={"objects": len(unnamed), "error": error.public})

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects with a prefix."""
        with _translated(self.name, asks_for_it=False):
            for page in self.store.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                if not page.keys() & _OF_A_LISTING:
                    raise BackendUnavailable("The object store cannot be reached: what answers gives no listing.")
                for entry in page.get("Contents", []):
                    yield StoredObject(entry["Key"], entry["Size"], entry["LastModified"])

    def presign_put(self, key: str, *, seconds: float, content_type: str, size: int) -> tuple[str, dict[str, str]]:
        """A URL that can be used for `seconds`, any number of times, to write the object with this size and type; and
        the headers that the request must have."""
        url = self.store.client.generate_presigned_url(
            "put_object",
            Params={"Bucket": self.name, "Key": key, "ContentType": content_type, "ContentLength": size},
            ExpiresIn=max(1, int(seconds)),
        )
        return url, {"Content-Type": content_type, "Content-Length": str(size)}

    def _ask(self, key: str, *, head: bool = False) -> GetResult:
        import obstore

        return _of_a_store(obstore.get(self._objects, _checked(key), options={"head": head}))


def fits_header(value: str) -> bool:
    """Whether an object can have this as its type or metadata. obstore panics at others."""
    return value.isascii() and value.isprintable()


def _whole(data: bytes, key: str, size: int | None) -> bytes:
    """The data, if it has the size that was stored."""
    if size not in (None, len(data)):
        raise NotWhole(f"The object store gave {len(data):,} bytes where {size:,} were stored.", detail=key)
    return data


def _checked(key: str) -> str:
    """The key, if an object can be stored under it."""
    if not _usable(key):
        raise NotFound(_NOT_THERE, detail=key)
    return key


def _usable(key: str) -> bool:
    parts = key.split("/")
    fits = len(key.encode(errors="replace")) <= MAX_KEY_BYTES
    return fits and key.isprintable() and not any(part in {"", ".", ".."} for part in parts)


def _of_a_store(answer: GetResult) -> GetResult:
    """The answer, if it has an ETag, as every object has; the web page of a proxy, as a rule, has none."""
    if answer.meta["e_tag"] is None:
        raise BackendUnavailable("The object store cannot be reached: what answers gives no object.")
    return answer


def _head(key: str, answer: GetResult) -> StoredObject:
    # Some servers return the names of user metadata capitalised.
    headers = {name.lower(): value for name, value in answer.attributes.items()}
    kind, _ = headers.pop("content-type", ""), headers.pop("cache-control", "")
    return StoredObject(key, answer.meta["size"], answer.meta["last_modified"], kind, headers)


@contextmanager
def _translated(what: str, *, asks_for_it: bool = True) -> Iterator[None]:
    """Turns the libraries' exceptions into ours: missing objects, refused ones, and a store that is away or full.

    Args:
        asks_for_it: whether a 404 can mean that `what` is not there. To a write, a deletion or a listing it is the
            answer of a proxy while the store behind it is away.
    """
    try:
        yield
    except ImgpipeError:
        raise
    except Exception as error:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        if not isinstance(error, (BaseError, BotoCoreError, ClientError, ResponseParserError, OSError)):
            raise
        detail, told = str(error), getattr(error, "response", None)  # botocore's; obstore's text has the whole answer
        found = re.search(r"(?:<Code>|\(code: )(\w+)", detail)  # the second where one of many was not deleted
        code = told.get("Error", {}).get("Code", "") if isinstance(told, dict) else found[1] if found else ""
        if not code and isinstance(error, PermissionDeniedError | UnauthenticatedError):
            code = "AccessDenied"  # the answer to HEAD has no body that could say more
        if code == "NoSuchBucket":  # an operator can create it, so no item may be given up for it
            raise BackendUnavailable("The object store has no such bucket.", detail=detail) from error
        if code in _ABSENT or isinstance(error, FileNotFoundError):
            if asks_for_it:
                raise NotFound(_NOT_THERE, detail=what) from error
            said = "The object store cannot be reached: what answers says 404 to a write or a listing."
            raise BackendUnavailable(said, detail=detail) from error
        if code in _HOPELESS:
            raise BadInput(f"The object store refuses the object ({code}).", detail=f"{what}: {detail}") from error
        if code in _FULL or _FULL_STATUS in detail:
            raise OutOfSpace(_NO_ROOM, detail=detail) from error
        how = f"refused ({code})" if code else "cannot be reached"
        raise BackendUnavailable(f"The object store {how}.", detail=detail) from error
