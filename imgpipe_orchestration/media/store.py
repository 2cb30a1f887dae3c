"""The media pipeline's queues and rows: images, steps, analyses and variants."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.media.embedding import holds
from imgpipe_orchestration.media.model import DataType, MediaStatus, Step, StepState
from imgpipe_orchestration.storage.claims import Claim, Claims, Item, Queue, State
from imgpipe_orchestration.storage.deletions import Deleted, is_deleted


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One row of `media_files`. `created_at` is when it was uploaded, `upload_day` the Dagster partition, `trace` the
    upload's `traceparent`."""

    id: int
    main_api_id: int
    user_id: int
    data_type: DataType
    kind: str
    image_path: str
    original_name: str | None
    mime_type: str | None
    file_size: int | None
    sha256: str | None
    width: int | None
    height: int | None
    animated: bool | None
    bulk_path: str | None
    focus: dict[str, Any] | None
    recipe: str | None
    background_removed: bool | None
    notes: list[str]
    status: MediaStatus
    error: str | None
    created_at: datetime
    upload_day: date
    trace: str
    private: bool
    held: bool


_FILE_COLUMNS = ", ".join(f"f.{name}" for name in MediaFile.__slots__)


def _file(row: Row[Any]) -> MediaFile:
    kinds = {"data_type": DataType(row.data_type), "status": MediaStatus(row.status)}
    return MediaFile(**{**row._mapping, **kinds})


ALONE = ("profile", "header", "logo")
"""Kinds (`Field.kind`) of which a user has one image: a newer one replaces it."""


# --- queues ----------------------------------------------------------------------------------------------------------


def _follow(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """Update `media_files` and the checklist when the queue's state changes."""
    if state is State.WAITING and error is None:  # requeued by a person: failed steps start again
        connection.execute(RESTART, {"ids": list(ids)})
    elif state is State.FAILED:
        given_up = connection.execute(_GIVE_UP, {"ids": list(ids), "error": error}).all()
        items = [Item(row.main_api_id, str(row.user_id)) for row in given_up if row.main_api_id > 0]
        Claims.enqueue(connection, URLS, items, again=True)


_STEPS_AGAIN = ", ".join(f"{step} = replace({step}, 'failed', 'pending'), {step}_attempts = 0" for step in Step)
RESTART = text(f"""
    with failed as (
        update processing_checklist set {_STEPS_AGAIN} where media_id = any(:ids) returning media_id
    )
    update media_files set error = null, status = case when bulk_path is null then 'downloading' else 'processing' end
    where id in (select media_id from failed)
""")

_GIVE_UP = text("""
    update media_files set status = 'failed', error = :error where id = any(:ids) returning main_api_id, user_id
""")

MEDIA = Queue("media", mirror=_follow)
"""Images in the steps; item ids are media ids. Each step is tried three times."""

HEALING = Queue("media_healing", max_attempts=8)
"""Finished images whose AI analysis failed and is retried for some ten minutes; item ids are media ids."""

REMAKE_VARIANTS = Queue("media_remake_variants", max_attempts=3)
REMAKE_ANALYSIS = Queue("media_remake_analysis", max_attempts=3)
UNHURRIED_ANALYSIS = Queue("media_unhurried_analysis", max_attempts=3)
"""Finished images whose variants or analysis are to be made again, the last at half price; item ids are media ids."""

CANARY = Queue("media_canary", max_attempts=3)
"""New images about which other models are asked as well, to compare them; item ids are media ids."""

URLS = Queue("media_urls", max_attempts=10)
"""Uploads whose images are processed, and whose temp URLs are to be replaced; or given up, and to be marked as failed.
Item ids are pending image ids."""

AGAIN = (REMAKE_VARIANTS, REMAKE_ANALYSIS, UNHURRIED_ANALYSIS)
OF_NO_DAY = (URLS, HEALING, CANARY)
"""Queues whose items belong to no day."""


# --- reading ---------------------------------------------------------------------------------------------------------


def media_file(connection: Connection, media_id: int) -> MediaFile:
    """One media file.

    Raises:
        Deleted: it was deleted.
        NotFound: no such media id.
    """
    row = connection.execute(text(f"select {_FILE_COLUMNS} from live_media f where id = :id"), {"id": media_id})
    found = row.one_or_none()
    if found is None:
        if is_deleted(connection, f"media/{media_id}"):
            raise Deleted(f"Media {media_id} was deleted.")
        raise NotFound(f"There is no media {media_id}.")
    return _file(found)


def media_of_pending(connection: Connection, pending_id: int, *, lock: bool = False) -> MediaFile | None:
    """The media file of a pending image; None if it is not registered. With `lock` it stays as it is until the
    transaction ends."""
    query = f"select {_FILE_COLUMNS} from media_files f where main_api_id = :id {'for share' if lock else ''}"
    row = connection.execute(text(query), {"id": pending_id}).one_or_none()
    return None if row is None else _file(row)


def last_completed(connection: Connection, user_id: int, kind: str, *, but: int = 0) -> int | None:
    """The media id of a user's latest finished image of a kind (`Field.kind`) that is not held, and is not `but`."""
    query = text("""
        select id from live_media where user_id = :user_id and kind = :kind and status = 'completed' and not held
        and id <> :but order by id desc limit 1
    """)
    found: int | None = connection.scalar(query, {"user_id": user_id, "kind": kind, "but": but})
    return found


PATH_ACCESS = text("""
    select coalesce(bool_or(f.private), exists (select from media_uploads u where u.image_path = :path and u.private
        and not exists (select from media_files f where f.main_api_id = u.pending_id))) as private,
        bool_or(f.held) as held
    from media_files f where f.image_path = :path
""")
"""Whether the upload at a temp path is private, and whether it is held; null where no intake has read it yet."""


def checklist(connection: Connection, media_id: int) -> dict[Step, StepState]:
    """The state of every step; empty where there is no such image."""
    query = text(f"select {', '.join(Step)} from processing_checklist where media_id = :id")
    row = connection.execute(query, {"id": media_id}).mappings().one_or_none()
    return {Step(step): StepState(state) for step, state in (row or {}).items()}


def pending_ids(connection: Connection, media_ids: Sequence[int]) -> list[int]:
    """The pending image ids of some media."""
    query = text("select main_api_id from media_files where id = any(:ids)")
    return list(connection.scalars(query, {"ids": list(media_ids)}))


def analysis(connection: Connection, media_id: int) -> dict[str, Any] | None:
    """The row of `media_ai_analysis` without the embedding; None where there is none."""
    query = text("select * from media_ai_analysis where media_id = :id")
    row = connection.execute(query, {"id": media_id}).mappings().one_or_none()
    return None if row is None else {key: value for key, value in row.items() if not key.startswith("embedding")}


# --- writing, inside a fence -----------------------------------------------------------------------------------------


def step_ended(connection: Connection, claim: Claim, step: Step, state: StepState, *, counts: bool = True) -> None:
    """Count a try of a step (if `counts`), and note its state and by whom; PENDING is tried again."""
    query = text(f"""
        update processing_checklist set {step} = :state, {step}_attempts = {step}_attempts + :n, worker_id = :worker
        where media_id = :id
    """)
    values = {"id": claim.item_id, "state": state.value, "n": int(counts), "worker": claim.owner[:50]}
    connection.execute(query, values)


def retrieved(connection: Connection, media_id: int, values: dict[str, Any]) -> None:
    """Store properties of the original: file_size, sha256, mime_type, width, height, animated, bulk_path."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    query = text(f"update media_files set {assignments}, status = 'processing' where id = :id")
    connection.execute(query, {**values, "id": media_id})


def save_analysis(connection: Connection, media_id: int, values: dict[str, Any]) -> None:
    """Store the values of an analysis; columns that are not in `values` keep those of an earlier one. So does that of
    the embedding if it takes vectors of another model by now."""
    row = dict(values)
    if "embedding" in row and not holds(connection, row["answered_by"]["embed"], row["embedding"]):
        del row["embedding"]  # a rebuild has ended meanwhile; a backfill makes what is absent
        row["providers"] = {**row["providers"], "openai_embedding": "absent"}
    columns, updates = ", ".join(row), ", ".join(f"{name} = excluded.{name}" for name in row)
    query = text(f"""
        insert into media_ai_analysis (media_id, {columns}) select :media_id, {columns}
        from jsonb_populate_record(cast(null as media_ai_analysis), cast(:row as jsonb))
        on conflict (media_id) do update set {updates}
    """)
    connection.execute(query, {"media_id": media_id, "row": json.dumps(row)})


def deleted_uploads(
    connection: Connection, pending_ids: Sequence[int] | None = None, *, user_id: int | None = None
) -> set[int]:
    """Those of some pending images whose media were deleted; by default, all (of a user) that were before we had
    processed them."""
    which = "f.status <> 'completed'" if pending_ids is None else "f.main_api_id = any(:ids)"
    if user_id is not None:
        which += " and f.user_id = :user"
    query = text(f"""
        select f.main_api_id from media_files f join deletions d on d.kind = 'media' and d.item = f.id
        where d.purged_at is null and {which}
    """)
    return set(connection.scalars(query, {"ids": list(pending_ids or ()), "user": user_id}))


# --- the manifest of an image: the rows of its variants --------------------------------------------------------------


class StoredVariant(NamedTuple):
    """One row of `media_variants`: a file in the media bucket."""

    size: str
    format: str
    background: str
    width: int
    height: int
    bytes: int
    sha256: str
    object_key: str


VARIANT_COLUMNS = ", ".join(f"v.{name}" for name in StoredVariant._fields)


def manifest_of(connection: Connection, media_id: int) -> list[StoredVariant]:
    """The manifest of one image."""
    query = text(f"""
        select {VARIANT_COLUMNS} from media_variants v where media_id = :id order by size, format, background
    """)
    return [StoredVariant(*row) for row in connection.execute(query, {"id": media_id})]


def version_of(variants: Iterable[StoredVariant]) -> str:
    """The version of an image's variants for URLs: 12 hexadecimal digits that change with any byte."""
    return hashlib.sha256("".join(sorted(one.sha256 for one in variants)).encode()).hexdigest()[:12]
