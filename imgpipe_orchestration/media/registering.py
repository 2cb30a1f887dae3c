"""The rows of an intake: media files, the intake's mark, and traces of uploads."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.media.model import field_of
from imgpipe_orchestration.media.pending import PendingImage
from imgpipe_orchestration.storage.history import in_batches, old_rows
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.web.names import clean_name

log = logger(__name__)


def note_upload_trace(connection: Connection, pending_id: int) -> None:
    """Store the current trace with an upload until it is registered."""
    if trace := tracing.current():
        query = text("insert into upload_traces (pending_id, trace) values (:id, :trace) on conflict do nothing")
        connection.execute(query, {"id": pending_id, "trace": trace})


def take_upload_traces(connection: Connection, pending_ids: Sequence[int]) -> dict[int, str]:
    """Return and delete the traces of some uploads, by pending image id."""
    query = text("delete from upload_traces where pending_id = any(:ids) returning pending_id, trace")
    return {row.pending_id: row.trace for row in connection.execute(query, {"ids": list(pending_ids)})}


def forget_upload_traces(engine: Engine, days: float) -> int:
    """Remove traces that are `days` old, whose uploads another worker processed; returns how many."""
    return in_batches(engine, old_rows("upload_traces", key="pending_id", ended="created_at"), days)


def registered(connection: Connection, images: Sequence[PendingImage]) -> set[int]:
    """The ids of the pending images that have a media file.

    Ids are reused when the table was emptied, restored or replaced by another database's. Then the media file with the
    same id and another path, perhaps of another user, loses the id: its upload is gone.
    """
    query = text("select main_api_id, image_path from media_files where main_api_id = any(:ids)")
    rows = connection.execute(query, {"ids": [image.id for image in images]})
    paths = {row.main_api_id: row.image_path for row in rows}
    reused = [image.id for image in images if paths.get(image.id, image.image_path) != image.image_path]
    if reused:
        log.warning("pending image ids came round again", extra={"count": len(reused), "pending_id": reused[0]})
        give_up = text("update media_files set main_api_id = -id where main_api_id = any(:ids)")
        connection.execute(give_up, {"ids": reused})
    return paths.keys() - set(reused)


def register(connection: Connection, image: PendingImage, trace: str, *, held: bool) -> int | None:
    """Create the media file of a pending image and its checklist. Returns its id; None if it was already registered.

    Args:
        held: nobody is shown it until it has a verdict.
    """
    field = field_of(image.image_path)
    values = {
        "main_api_id": image.id,
        "user_id": image.user_id,
        "data_type": field.data_type.value,
        "kind": field.kind,
        "image_path": image.image_path,
        "original_name": image.original_name and clean_name(image.original_name),  # others write these rows too
        "mime_type": image.mime_type,
        "uploaded": image.created_at,
        "upload_day": image.day,
        "trace": trace,
        "held": held,
    }
    media_id: int | None = connection.scalar(_REGISTER, values)
    if media_id is not None:
        connection.execute(text("insert into processing_checklist (media_id) values (:id)"), {"id": media_id})
    return media_id


_REGISTER = text("""
    insert into media_files
        (main_api_id, user_id, data_type, kind, image_path, original_name, mime_type, created_at, upload_day, trace,
            held, private)
    values (:main_api_id, :user_id, :data_type, :kind, :image_path, :original_name, :mime_type,
        least(:uploaded, now()), :upload_day, :trace, :held,
        exists (select from media_uploads u where u.image_path = :image_path and u.private))
    on conflict (main_api_id) do nothing returning id
""")


def intake_mark(connection: Connection, *, minutes_ago: int = 0) -> int:
    """The highest pending image id that an intake had read (some minutes ago); 0 before the first."""
    query = text("""
        select coalesce(max(last_id), 0) from pending_intake where seen_at <= now() - make_interval(mins => :minutes)
    """)
    return int(connection.scalar(query, {"minutes": minutes_ago}) or 0)


def lower_intake_mark(connection: Connection, last_id: int) -> None:
    """Remove marks past `last_id`, the last row that exists; otherwise new rows below them would seem to be read."""
    connection.execute(text("delete from pending_intake where last_id > :id"), {"id": last_id})


def move_intake_mark(connection: Connection, last_id: int) -> None:
    """Move the mark to `last_id`; marks of the last day are kept for `minutes_ago`."""
    connection.execute(text("delete from pending_intake where seen_at < now() - interval '1 day'"))
    query = text("""
        insert into pending_intake (last_id)
        select :id where :id > coalesce((select max(last_id) from pending_intake), 0)
    """)
    connection.execute(query, {"id": last_id})
