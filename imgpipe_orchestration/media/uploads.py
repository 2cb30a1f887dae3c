"""Accepting uploads: all of a request or none of it, bytes before rows, rows before the answer.

A direct upload is announced, put under `staging/` of the object store by the client, then committed. Its URL is valid
for one object of the announced type and size, until it expires. The commit checks the content with the same code as
`PATCH /users/me`. What is never committed is garbage.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel
from sqlalchemy import Connection, RowMapping, column, literal_column, table, text
from sqlalchemy.dialects.postgresql import insert

from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    BadInput,
    Conflict,
    Gone,
    ImgpipeError,
    NotFound,
    Retryable,
    TooLarge,
)
from imgpipe_orchestration.media import model, pending
from imgpipe_orchestration.media.model import FIELDS, DataType, Field
from imgpipe_orchestration.storage.history import old_rows
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.web.texts import size_text
from imgpipe_orchestration.wiring.services import Services

PROFILE_TEXTS = ("display_name", "first_name", "last_name", "bio", "website", "phone", "location")
"""Text fields of `PATCH /users/me`; each is a column of `user_profiles`."""
TEXT_LIMIT = 10_000
"""Characters of one text field."""
SVG_TYPE = "image/svg+xml"


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a request."""

    field: Field
    original_name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted file: its row's id and its temp path."""

    field: str
    pending_id: int
    image_path: str


def accept(
    services: Services,
    user_id: int,
    uploads: Sequence[Upload],
    texts: Mapping[str, str],
    *,
    before: Callable[[Sequence[str]], None] = lambda _: None,
    within: Callable[[Connection, Sequence[Accepted]], None] = lambda *_: None,
) -> list[Accepted]:
    """Check all files, store their bytes, then commit their rows and the profile in one transaction.

    Args:
        before: called with the files' paths before that transaction.
        within: called within it; if it raises, nothing is accepted.

    Raises:
        BadImage, TooLarge: a file is not an acceptable image, or too large; says which. Nothing is stored.
        BadInput: a text is too long.
        BackendUnavailable: nothing was accepted; send the request again.
    """
    for name, value in texts.items():
        if len(value) > TEXT_LIMIT:
            raise BadInput(f"{name} has {len(value)} characters; the limit is {TEXT_LIMIT}.", field=name)
    files = [_checked(services, user_id, upload) for upload in uploads]
    stored: list[str] = []
    try:
        for path, mime, data in files:
            key = model.temp_key(path)
            services.media_bucket.put(key, data, content_type=mime, cache_control="no-store")
            stored.append(key)
    except ImgpipeError:
        services.media_bucket.discard(stored)
        raise
    accepted = []
    try:
        before([path for path, _, _ in files])
        with pending.both(services) as (connection, where):
            # The profile first: if the uploads' table is in another database, that transaction commits first, and a
            # profile that cannot be written must roll it back.
            _write_profile(connection, user_id, texts)
            for upload, (path, mime, _) in zip(uploads, files, strict=True):
                point_to(connection, user_id, upload.field, path)
                name = upload.original_name[:255]
                image_id = pending.add(where, user_id=user_id, image_path=path, original_name=name, mime_type=mime)
                if trace := tracing.current():
                    connection.execute(_NOTE_TRACE, {"id": image_id, "trace": trace})
                accepted.append(Accepted(upload.field.name, image_id, path))
            within(connection, accepted)
    except BackendUnavailable:
        # The rows may have been committed nevertheless, and need their files; otherwise the files are garbage.
        raise
    except ImgpipeError:
        services.media_bucket.discard(stored)
        raise
    return accepted


def _checked(services: Services, user_id: int, upload: Upload) -> tuple[str, str, bytes]:
    """A file's path, type and bytes. Its content determines the type; its name and Content-Type do not count."""
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    check_size(services, upload.field, len(upload.data))
    try:
        data = drawn(services, upload.data, upload.field.data_type)
        found = sniff(data)
    except (BadImage, TooLarge) as error:
        raise type(error)(f"{upload.field.name}: {error.public}", detail=error.detail) from error
    return model.temp_path(upload.field, user_id, found.extension), found.mime, data


def check_size(services: Services, field: Field, size: int) -> None:
    """
    Raises:
        TooLarge: a file of this many bytes is not taken.
    """
    limit = services.settings.upload_max_bytes
    if size > limit:
        raise TooLarge(f"{field.name}: the file is larger than {size_text(limit)}.")


def drawn(services: Services, data: bytes, data_type: DataType) -> bytes:
    """A logo's SVG as PNG, before anything else sees it: the SVG is neither kept nor served. Anything else as it is.

    Raises:
        BadImage, TooLarge: the SVG cannot be drawn within the limits.
    """
    from imgpipe_orchestration.imaging.reading.svg import is_svg, rasterised

    if data_type is not DataType.LOGO or not is_svg(data):
        return data
    return services.logo_workshop.call(rasterised, data)


def _write_profile(connection: Connection, user_id: int, texts: Mapping[str, str]) -> None:
    """Write the texts, and lock the profile until the transaction ends, even if there are none: otherwise simultaneous
    uploads of one user could deadlock, as each locks rows in the order of its form."""
    values = {"user_id": user_id, **texts}
    profiles = table("user_profiles", *map(column, values))
    query = insert(profiles).values(values).on_conflict_do_update(index_elements=["user_id"], set_=values)
    connection.execute(query)


def point_to(connection: Connection, user_id: int, field: Field, path: str) -> None:
    """Write `path` to the place in the user's profile where this kind of image is shown."""
    values = {"user_id": user_id, "path": path}
    if field.kind in {"profile", "header"}:
        column = f"{field.kind}_image_path"
        connection.execute(text(f"update user_profiles set {column} = :path where user_id = :user_id"), values)
    elif field.kind == "logo":
        changed = 0
        for table in ("artist_profiles", "promoter_profiles"):
            query = text(f"update {table} set logo_path = :path, updated_at = now() where user_id = :user_id")
            changed += connection.execute(query, values).rowcount
        if not changed:  # a user with neither profile gets one as an artist
            query = text("""
                insert into artist_profiles (user_id, logo_path) values (:user_id, :path)
                on conflict (user_id) do update set logo_path = excluded.logo_path, updated_at = now()
            """)
            connection.execute(query, values)
    else:
        query = text(f"insert into {field.kind}_media (user_id, media_path) values (:user_id, :path)")
        connection.execute(query, values)


def remove_temp(services: Services, path: str) -> None:
    """Delete the temp file of an upload; does nothing for paths of other kinds, which others' rows may have."""
    if model.is_temp_path(path):
        services.media_bucket.delete(model.temp_key(path))


def field_named(name: str) -> Field:
    """The file field of the form.

    Raises:
        BadInput: the form has no such file field.
    """
    if name not in FIELDS:
        raise BadInput(f"{name!r} is not a file field; send one of {', '.join(FIELDS)}.", field=name)
    return FIELDS[name]


_NOTE_TRACE = text("insert into upload_traces (pending_id, trace) values (:id, :trace) on conflict do nothing")


# --- direct uploads --------------------------------------------------------------------------------------------------

STAGING = "staging/"
MOST_OPEN = 100
"""Announced uploads of one user that are neither committed nor expired."""
OPEN_SECONDS = 900.0
"""How long an upload straight to S3 may take to be committed."""


class TooManyOpen(Retryable):
    """This user has too many uploads that are announced and not committed."""

    status = 429
    title = "Too many requests"
    report = False


class NotThere(Conflict):
    """The file has not arrived in the object store."""


class PresignedUploadAnswer(BaseModel):
    """Send the file to `url` by `method` with just these headers before `expires_at`; then commit."""

    success: bool = True
    upload_id: str
    method: Literal["PUT"] = "PUT"
    url: str
    headers: dict[str, str]
    expires_at: datetime


def presign(
    services: Services, user_id: int, *, kind: str, content_type: str, size: int, name: str, private: bool
) -> PresignedUploadAnswer:
    """A URL for one PUT of `size` bytes; `kind` is one of FIELDS.

    Raises:
        BadImage: an SVG that is not a logo.
        TooLarge: the file is past the limit.
        TooManyOpen: the user has MOST_OPEN of them.
    """
    field = FIELDS[kind]
    check_size(services, field, size)
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
        "expires_at": literal_column(f"now() + make_interval(secs => {OPEN_SECONDS})"),
    }
    new = insert(table("media_uploads", *map(column, row))).values(row)
    with transaction(services.engine) as connection:
        connection.execute(_ONE_AT_A_TIME, {"user_id": user_id})
        if (connection.scalar(_OPEN, {"user_id": user_id}) or 0) >= MOST_OPEN:
            raise TooManyOpen(f"You have {MOST_OPEN} uploads open; commit them, or wait.", retry_after=OPEN_SECONDS)
        expires_at: datetime = connection.execute(new.returning(column("expires_at"))).scalar_one()
    url, headers = services.upload_bucket.presign_put(key, seconds=OPEN_SECONDS, content_type=content_type, size=size)
    return PresignedUploadAnswer(upload_id=upload_id, url=url, headers=headers, expires_at=expires_at)


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
        return Accepted(row["field"], row["pending_id"], row["image_path"])
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
            raise Conflict("Another commit of this upload came first.")

    try:
        upload = Upload(FIELDS[row["field"]], row["original_name"] or upload_id, _arrived(services, row))
        (accepted,) = accept(services, user_id, [upload], {}, before=announce, within=settle)
    except (BadImage, TooLarge):
        services.media_bucket.discard([row["object_key"]])
        raise
    except Conflict:
        # Another commit of the same upload may have come first and deleted the file.
        if _row(services, user_id, upload_id)["pending_id"] is None:
            raise
        return commit(services, user_id, upload_id)
    services.media_bucket.discard([row["object_key"]])
    return accepted


def _arrived(services: Services, row: RowMapping) -> bytes:
    head = services.media_bucket.head(row["object_key"])
    if head is None:
        raise NotThere("The file has not arrived; send it to the URL first, then commit.")
    check_size(services, FIELDS[row["field"]], head.size)
    try:
        return services.media_bucket.get(row["object_key"], size=head.size)
    except NotFound as error:
        raise NotThere("The file has gone again; send it once more.") from error


def _row(services: Services, user_id: int, upload_id: str) -> RowMapping:
    with transaction(services.engine) as connection:
        row = connection.execute(_SELECT, {"id": upload_id, "user_id": user_id}).mappings().one_or_none()
    if row is None:
        raise NotFound("You have no such upload.")
    return row


_SELECT = text("select *, expires_at < now() as expired from media_uploads where id = :id and user_id = :user_id")
# Or requests of a user that come together would pass the limit together.
_ONE_AT_A_TIME = text("select pg_advisory_xact_lock(hashtextextended('uploads of ' || :user_id, 0))")
_OPEN = text("""
    select count(*) from media_uploads where user_id = :user_id and pending_id is null and expires_at > now()
""")
FORGET = old_rows(
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
