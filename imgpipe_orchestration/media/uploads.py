"""Accepting uploads: all of a request or none of it, bytes before rows, rows before the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import BackendUnavailable, BadImage, BadInput, ImgpipeError, TooLarge
from imgpipe_orchestration.media import logos, model, pending, registering
from imgpipe_orchestration.media.model import FIELDS, Field
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.web.names import size_text

PROFILE_TEXTS = ("display_name", "first_name", "last_name", "bio", "website", "phone", "location")
"""Text fields of `PATCH /users/me`; each is a column of `user_profiles`."""
TEXT_LIMIT = 10_000
"""Characters of one text field."""


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


@dataclass(frozen=True, slots=True)
class _Checked:
    upload: Upload
    path: str
    mime: str


Within = Callable[[Connection, Sequence[Accepted]], None]
"""Called within the transaction that accepts uploads; if it raises, nothing is accepted."""


def accept(
    services: Services,
    user_id: int,
    uploads: Sequence[Upload],
    texts: Mapping[str, str],
    *,
    before: Callable[[Sequence[str]], None] = lambda _: None,
    within: Within = lambda *_: None,
) -> list[Accepted]:
    """Check all files, store their bytes, then commit their rows and the profile in one transaction.

    Args:
        before: called with the files' paths before that transaction.

    Raises:
        BadImage, TooLarge: a file is not an acceptable image, or too large; says which. Nothing is stored.
        BadInput: a text is too long.
        BackendUnavailable: nothing was accepted; send the request again.
    """
    for name, value in texts.items():
        if len(value) > TEXT_LIMIT:
            raise BadInput(f"{name} has {len(value)} characters; the limit is {TEXT_LIMIT}.", field=name)
    checked = [_check(services, user_id, upload) for upload in uploads]
    stored: list[str] = []
    try:
        for one in checked:
            key = model.temp_key(one.path)
            services.media_bucket.put(key, one.upload.data, content_type=one.mime, cache_control="no-store")
            stored.append(key)
    except ImgpipeError:
        services.media_bucket.discard(stored)
        raise
    try:
        before([one.path for one in checked])
        return _commit(services, user_id, checked, texts, within)
    except BackendUnavailable:
        # The rows may have been committed nevertheless, and need their files; otherwise the files are garbage.
        raise
    except ImgpipeError:
        services.media_bucket.discard(stored)
        raise


def _check(services: Services, user_id: int, upload: Upload) -> _Checked:
    """Determine a file's type from its content; its name and Content-Type do not count."""
    from imgpipe_orchestration.imaging.reading.sniff import sniff

    check_size(services, upload.field, len(upload.data))
    try:
        data = logos.drawn(services, upload.data, upload.field.data_type)
        found = sniff(data)
    except (BadImage, TooLarge) as error:
        raise type(error)(f"{upload.field.name}: {error.public}", detail=error.detail) from error
    upload = replace(upload, data=data)
    return _Checked(upload, model.temp_path(upload.field, user_id, found.extension), found.mime)


def check_size(services: Services, field: Field, size: int) -> None:
    """
    Raises:
        TooLarge: a file of this many bytes is not taken.
    """
    limit = services.settings.upload_max_bytes
    if size > limit:
        raise TooLarge(f"{field.name}: the file is larger than {size_text(limit)}.")


def _commit(
    services: Services, user_id: int, checked: Sequence[_Checked], texts: Mapping[str, str], within: Within
) -> list[Accepted]:
    accepted = []
    with pending.both(services) as (connection, where):
        # The profile first: if the uploads' table is in another database, that transaction commits first, and a profile
        # that cannot be written must roll it back.
        _write_profile(connection, user_id, texts)
        for one in checked:
            point_to(connection, user_id, one.upload.field, one.path)
            name = one.upload.original_name[:255]
            image_id = pending.add(where, user_id=user_id, image_path=one.path, original_name=name, mime_type=one.mime)
            registering.note_upload_trace(connection, image_id)
            accepted.append(Accepted(one.upload.field.name, image_id, one.path))
        within(connection, accepted)
    return accepted


def _write_profile(connection: Connection, user_id: int, texts: Mapping[str, str]) -> None:
    """Write the texts, and lock the profile until the transaction ends, even if there are none: otherwise simultaneous
    uploads of one user could deadlock, as each locks rows in the order of its form."""
    names = [name for name in PROFILE_TEXTS if name in texts]
    columns = "".join(f", {name}" for name in names)
    slots = "".join(f", :{name}" for name in names)
    sets = ", ".join(f"{name} = excluded.{name}" for name in names)
    query = f"insert into user_profiles (user_id{columns}) values (:user_id{slots}) on conflict (user_id) do "
    query += f"update set {sets or 'user_id = excluded.user_id'}"
    connection.execute(text(query), {"user_id": user_id, **{name: texts[name] for name in names}})


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
