"""Objects in S3: one bucket as a small vocabulary, every fault in our own terms."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from imgpipe_orchestration.errors import BackendUnavailable, BadInput, ImgpipeError, NotFound, OutOfSpace, SettingsError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from urllib3 import PoolManager

MAX_KEY_BYTES = 1024
"""Longest key of S3 (Amazon S3 user guide, "Naming Amazon S3 objects")."""

_ABSENT = {"404", "NoSuchKey", "NotFound", "NoSuchBucket"}
_HOPELESS = {"KeyTooLongError", "EntityTooLarge", "InvalidURI", "MetadataTooLarge", "XMinioInvalidObjectName"}
"""Refusals that another try will meet again. Others, wrong keys among them, are for an operator to mend: work waits."""

_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
"""What MinIO and Ceph say when there is no room; the embedded rclone says InternalError, as of any fault of a disk."""

_making_client = threading.Lock()
"""boto3 makes clients from a session that threads must not share meanwhile."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object's head: size in bytes, type, caching, time of its last write."""

    key: str
    size: int
    content_type: str
    cache_control: str
    modified: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    """User metadata, names in lower case."""


class ObjectStore:
    """The S3 of one endpoint; the client is made on first use and shared by threads."""

    def __init__(self, *, endpoint: str, access_key: str, secret_key: str, region: str = "us-east-1") -> None:
        self.endpoint = endpoint
        self._access_key = access_key
        self._secret_key = secret_key
        self._region = region

    @cached_property
    def client(self) -> S3Client:
        if not self.endpoint:
            raise SettingsError("S3_ENDPOINT is not set: start `imgpipe up`, or point it at an S3", field="S3_ENDPOINT")
        import boto3
        from botocore.config import Config

        with _making_client:
            session = boto3.session.Session()
        return session.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key,
            region_name=self._region,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                max_pool_connections=64,
                connect_timeout=3,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 3},
                # The default one is composed anew for every request, at a tenth of its cost.
                user_agent="imgpipe",
                # Not every S3 knows the newer checksum headers; the content hash is in our manifest.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    @cached_property
    def plain(self) -> PoolManager:
        """Connections for presigned URLs."""
        from urllib3 import PoolManager, Timeout

        return PoolManager(maxsize=64, timeout=Timeout(connect=3, read=30))

    def bucket(self, name: str) -> Bucket:
        return Bucket(self, name)


class Bucket:
    """One bucket.

    Keys are folders and a name, as `library/user_7/product/img/12.avif`: without empty parts, `.` and `..`, which some
    servers refuse and others resolve. Nothing is ever stored under another key, so reading one finds nothing.
    """

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.store = store
        self.name = name

    def ensure(self) -> None:
        """Create the bucket if it is not there."""
        from botocore.exceptions import ClientError

        try:
            self._call("head_bucket")
        except NotFound:
            try:
                self._call("create_bucket")
            except ImgpipeError as error:
                if not (isinstance(error.__cause__, ClientError) and "BucketAlready" in str(error.__cause__)):
                    raise

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
            BadInput: the key or the metadata cannot be stored.
            BackendUnavailable: the store cannot be reached or is out of space.
        """
        if not _usable(key):
            raise BadInput(f"{key!r} cannot be the key of an object.", field="key")
        extra: dict[str, Any] = {"CacheControl": cache_control} if cache_control else {}
        self._call("put_object", Key=key, Body=data, ContentType=content_type, Metadata=dict(metadata or {}), **extra)

    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            NotFound: no such key.
            BackendUnavailable: the store cannot be reached.
        """
        return self.get_with_head(key)[0]

    def get_with_head(self, key: str) -> tuple[bytes, StoredObject]:
        """The whole object and its head, in one request."""
        answer = self._call("get_object", Key=key)
        with _translated(key):
            data = answer["Body"].read()
        return data, _head(key, answer)

    def read(self, key: str) -> bytes:
        """As `get`, for somebody who waits for one object: by a presigned URL over a plain connection, at a fifth of
        what a request costs the SDK (1 ms of CPU). Whatever is not just the object is left to the SDK."""
        from urllib3.exceptions import HTTPError

        if not _usable(key):
            return self.get(key)
        try:
            answer = self.store.plain.request("GET", self.presign(key), retries=False)
        except HTTPError:
            return self.get(key)
        return answer.data if answer.status == 200 else self.get(key)

    def head(self, key: str) -> StoredObject | None:
        """The object's head, or None when there is no such key."""
        try:
            return _head(key, self._call("head_object", Key=key))
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is no error."""
        try:
            self._call("delete_object", Key=key)
        except NotFound:
            return

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """Heads of all objects below `prefix` (their content type is not known to a listing)."""
        token: dict[str, str] = {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **token)
            for entry in page.get("Contents", []):
                yield StoredObject(entry["Key"], entry["Size"], "", "", entry["LastModified"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def presign(self, key: str, *, seconds: int = 3600, method: str = "get_object") -> str:
        """A URL that reads (or, with `put_object`, writes) the object for `seconds`."""
        return self.store.client.generate_presigned_url(
            method, Params={"Bucket": self.name, "Key": key}, ExpiresIn=seconds
        )

    def presign_put(self, key: str, *, seconds: float, content_type: str, size: int) -> tuple[str, dict[str, str]]:
        """A URL that writes the object once or more, for `seconds`: with a body of just this size and type, which are
        signed. Returns the headers that the request must have beside it."""
        url = self.store.client.generate_presigned_url(
            "put_object",
            Params={"Bucket": self.name, "Key": key, "ContentType": content_type, "ContentLength": size},
            ExpiresIn=max(1, int(seconds)),
        )
        return url, {"Content-Type": content_type, "Content-Length": str(size)}

    def _call(self, operation: str, **arguments: Any) -> Any:
        if "Key" in arguments and not _usable(arguments["Key"]):
            raise NotFound(f"No object {arguments['Key']!r}")
        with _translated(arguments.get("Key", self.name)):
            return getattr(self.store.client, operation)(Bucket=self.name, **arguments)


def _usable(key: str) -> bool:
    parts = key.split("/")
    fits = len(key.encode(errors="replace")) <= MAX_KEY_BYTES
    return fits and key.isprintable() and not any(part in {"", ".", ".."} for part in parts)


def _head(key: str, answer: Mapping[str, Any]) -> StoredObject:
    return StoredObject(
        key,
        answer["ContentLength"],
        answer.get("ContentType", ""),
        answer.get("CacheControl", ""),
        answer.get("LastModified"),
        # Some servers give the names back capitalised.
        {name.lower(): value for name, value in answer.get("Metadata", {}).items()},
    )


class _translated:
    """Turns the SDK's exceptions into ours: what is not there, what never will be taken, and the store's absence."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, ImgpipeError):
            return
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
        from urllib3.exceptions import HTTPError

        if isinstance(error, ClientError):
            code = error.response.get("Error", {}).get("Code", "")
            if code in _ABSENT:
                raise NotFound(f"No object {self.what!r}") from error
            if code in _HOPELESS:
                raise BadInput(f"The object store refuses {self.what!r} ({code}).", detail=str(error)) from error
            if code in _FULL:
                raise OutOfSpace("The object store has no room left; nothing was stored.", detail=str(error)) from error
            raise BackendUnavailable(f"The object store refused ({code or 'unknown'}).", detail=str(error)) from error
        if isinstance(error, ParamValidationError):
            raise BadInput(f"{self.what!r} cannot be stored as asked.", detail=str(error)) from error
        if isinstance(error, (BotoCoreError, HTTPError, OSError)):
            raise BackendUnavailable("The object store cannot be reached.", detail=str(error)) from error
