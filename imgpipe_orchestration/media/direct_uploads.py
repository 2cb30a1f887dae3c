"""Direct uploads to the object store: announced, put under `staging/` by the client, then committed.

The URL is valid for one object of the announced type and size, until it expires. The commit checks the content with the
same code as `PATCH /users/me`. What is never committed is garbage.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, RowMapping, text

from imgpipe_orchestration.errors import BadImage, Conflict, Gone, NotFound, Retryable, TooLarge
from imgpipe_orchestration.media import uploads
from imgpipe_orchestration.media.logos import SVG_TYPE
from imgpipe_orchestration.media.model import FIELDS, DataType
from imgpipe_orchestration.media.uploads import Accepted, Upload
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.history import in_batches, old_rows
from imgpipe_orchestration.storage.rows import transaction

STAGING = "staging/"
MOST_OPEN = 100
OPEN_SECONDS = 900.0
"""How long an upload straight to S3 may take to be committed."""
"""Announced uploads of one user that are neither committed nor expired."""


class TooManyOpen(Retryable):
    """This user has too many uploads that are announced and not committed."""

    status = 429
    title = "Too many requests"
    report = False


class NotThere(Conflict):
    """The file has not arrived in the object store."""


@dataclass(frozen=True, slots=True)
class PresignedUpload:
    """Where and how to send a file."""

    id: str
    url: str
    headers: dict[str, str]
    expires_at: datetime


def presign(
    services: Services, user_id: int, *, kind: str, content_type: str, size: int, name: str, private: bool
) -> PresignedUpload:
    """A URL for one PUT of `size` bytes; `kind` is the name of a field of the upload form.

    Raises:
        BadInput: no such kind.
        BadImage: an SVG that is no logo.
        TooLarge: the file is past the limit.
        TooManyOpen: the user has MOST_OPEN of them.
    """
    field = uploads.field_named(kind)
    uploads.check_size(services, field, size)
    if content_type.partition(";")[0].strip().lower() == SVG_TYPE and field.data_type is not DataType.LOGO:
        raise BadImage(f"{field.name}: SVG is only accepted as a logo (logo_image): send a JPEG or PNG.")
    upload_id = secrets.token_urlsafe(18)
    key = f"{STAGING}{user_id}/{upload_id}"
    row = {
        "id": upload_id,
        "user_id": user_id,
        "field": field.name,
        "original_name": name,
        "content_type": content_type,
        "bytes": size,
        "private": private,
        "object_key": key,
        "seconds": OPEN_SECONDS,
    }
    with transaction(services.engine) as connection:
        connection.execute(_ONE_AT_A_TIME, {"user_id": user_id})
        if (connection.scalar(_OPEN, {"user_id": user_id}) or 0) >= MOST_OPEN:
            raise TooManyOpen(f"You have {MOST_OPEN} uploads open; commit them, or wait.", retry_after=OPEN_SECONDS)
        expires_at = connection.execute(_INSERT, row).scalar_one()
    url, headers = services.upload_bucket.presign_put(key, seconds=OPEN_SECONDS, content_type=content_type, size=size)
    return PresignedUpload(upload_id, url, headers, expires_at)


def forget_presigned(engine: Engine) -> int:
    """Remove old presigned uploads; returns how many. They are kept for a day, so that a late commit is told so, and a
    repeated one gets the same answer."""
    return in_batches(engine, _FORGET, days=1)


def commit(services: Services, user_id: int, upload_id: str) -> Accepted:
    """Accept a file that was sent; may be repeated.

    Raises:
        NotFound: no such upload of this user.
        Gone: it has expired.
        NotThere: the file has not arrived.
        BadImage, TooLarge: not an acceptable image; it is deleted, and another may be sent while the URL is valid.
        Retryable: nothing was accepted; try again.
    """
    row = _row(services, user_id, upload_id)
    if row["pending_id"] is not None:
        return _accepted(row)
    if row["expired"]:
        raise Gone("This upload has expired; announce it again.")

    def announce(paths: Sequence[str]) -> None:
        if row["private"] and services.pending_engine is not services.engine:
            # The row in the other database is committed before ours. An intake that reads it in between must know that
            # it is private.
            with transaction(services.engine) as connection:
                connection.execute(_NAME, {"id": upload_id, "path": paths[0]})

    def settle(connection: Connection, accepted: Sequence[Accepted]) -> None:
        values = {"id": upload_id, "pending_id": accepted[0].pending_id, "path": accepted[0].image_path}
        if not connection.execute(_SETTLE, values).rowcount:
            raise _CommittedElsewhere("Another commit of this upload came first.")

    try:
        upload = Upload(FIELDS[row["field"]], row["original_name"] or upload_id, _arrived(services, row))
        (accepted,) = uploads.accept(services, user_id, [upload], {}, before=announce, within=settle)
    except (BadImage, TooLarge):
        services.media_bucket.discard([row["object_key"]])
        raise
    except (NotThere, _CommittedElsewhere):
        # Another commit of the same upload may have come first and deleted the file.
        row = _row(services, user_id, upload_id)
        if row["pending_id"] is None:
            raise
        return _accepted(row)
    services.media_bucket.discard([row["object_key"]])
    return accepted


def _arrived(services: Services, row: RowMapping) -> bytes:
    head = services.media_bucket.head(row["object_key"])
    if head is None:
        raise NotThere("The file has not arrived; send it to the URL first, then commit.")
    uploads.check_size(services, FIELDS[row["field"]], head.size)
    try:
        return services.media_bucket.get(row["object_key"], size=head.size)
    except NotFound as error:
        raise NotThere("The file has gone again; send it once more.") from error


class _CommittedElsewhere(Conflict):
    """Another commit of the same upload came first."""


def open_keys(connection: Connection, keys: Sequence[str]) -> set[str]:
    """The keys of objects whose uploads can still be committed."""
    return set(connection.scalars(_NAMED, {"keys": list(keys)}))


def _row(services: Services, user_id: int, upload_id: str) -> RowMapping:
    with transaction(services.engine) as connection:
        row = connection.execute(_SELECT, {"id": upload_id, "user_id": user_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("There is no such upload of yours.")
    return row


def _accepted(row: RowMapping) -> Accepted:
    return Accepted(row["field"], row["pending_id"], row["image_path"])


_INSERT = text("""
    insert into media_uploads
        (id, user_id, field, original_name, content_type, bytes, private, object_key, expires_at)
    values (:id, :user_id, :field, :original_name, :content_type, :bytes, :private, :object_key,
        now() + make_interval(secs => :seconds))
    returning expires_at
""")
_SELECT = text("select *, expires_at < now() as expired from media_uploads where id = :id and user_id = :user_id")
# Or requests of a user that come together would pass the limit together.
_ONE_AT_A_TIME = text("select pg_advisory_xact_lock(hashtextextended('uploads of ' || :user_id, 0))")
_OPEN = text("""
    select count(*) from media_uploads where user_id = :user_id and pending_id is null and expires_at > now()
""")
_FORGET = old_rows(
    "media_uploads",
    ended="expires_at",
    # That of a private upload stays until an intake has read that it is private.
    condition="""not (private and pending_id is not null
        and not exists (select from media_files f where f.main_api_id = pending_id))""",
)
_SETTLE = text("""
    update media_uploads set pending_id = :pending_id, image_path = :path where id = :id and pending_id is null
""")
_NAME = text("update media_uploads set image_path = :path where id = :id and pending_id is null")
_NAMED = text("""
    select object_key from media_uploads where object_key = any(:keys) and pending_id is null and expires_at > now()
""")
