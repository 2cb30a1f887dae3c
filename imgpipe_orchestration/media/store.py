"""The media pipeline's queues and rows: images, steps, originals, analyses and callbacks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.media.embedding import holds
from imgpipe_orchestration.media.model import DataType, MediaStatus, Step, StepState
from imgpipe_orchestration.storage.claims import Claim, Item, Queue, State
from imgpipe_orchestration.storage.deletions import Deleted, is_deleted
from imgpipe_orchestration.storage.queues import WITHDRAWN


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


def _file(row: Sequence[Any]) -> MediaFile:
    values = dict(zip(MediaFile.__slots__, row, strict=True))
    values["data_type"] = DataType(values["data_type"])
    values["status"] = MediaStatus(values["status"])
    return MediaFile(**values)


ALONE = ("profile", "header", "logo")
"""Kinds (`Field.kind`) of which a user has one image: a newer one replaces it."""


# --- queues ----------------------------------------------------------------------------------------------------------


def _follow(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """Update `media_files` and the checklist when the queue's state changes."""
    if state is State.WAITING and error is None:  # requeued by a person: failed steps start again
        connection.execute(_RESTART, {"ids": list(ids)})
    elif state is State.FAILED:
        connection.execute(_GIVE_UP, {"ids": list(ids), "error": error})


_RESTART = text("""
    with failed as (
        update processing_checklist set
            retrieve_file = replace(retrieve_file, 'failed', 'pending'), retrieve_file_attempts = 0,
            ai_visual_analysis = replace(ai_visual_analysis, 'failed', 'pending'), ai_visual_analysis_attempts = 0,
            resize_optimize = replace(resize_optimize, 'failed', 'pending'), resize_optimize_attempts = 0,
            update_callback = replace(update_callback, 'failed', 'pending'), update_callback_attempts = 0
        where media_id = any(:ids) returning media_id
    )
    update media_files set error = null, status = case when bulk_path is null then 'downloading' else 'processing' end
    where id in (select media_id from failed)
""")

_GIVE_UP = text("update media_files set status = 'failed', error = :error where id = any(:ids)")

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

CLEANUPS = Queue("media_cleanups", max_attempts=10)
"""Failed uploads that are to be reported to a foreign main API; item ids are pending image ids."""

URLS = Queue("media_urls", max_attempts=10)
"""Processed images whose temp URLs are to be replaced; item ids are pending image ids."""


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


def media_of_pending(connection: Connection, pending_id: int) -> MediaFile | None:
    """The media file of a pending image; None if it is not registered."""
    query = text(f"select {_FILE_COLUMNS} from media_files f where main_api_id = :id")
    row = connection.execute(query, {"id": pending_id}).one_or_none()
    return None if row is None else _file(row)


def last_completed(connection: Connection, user_id: int, kind: str, *, but: int = 0) -> int | None:
    """The media id of a user's latest finished image of a kind (`Field.kind`) that is not held, and is not `but`."""
    query = text("""
        select id from live_media where user_id = :user_id and kind = :kind and status = 'completed' and not held
        and id <> :but order by id desc limit 1
    """)
    found: int | None = connection.scalar(query, {"user_id": user_id, "kind": kind, "but": but})
    return found


def shows_one_of(connection: Connection, user_id: int, urls: Sequence[str]) -> bool:
    """Whether a user's profile image, header or logo has one of these URLs."""
    query = text("""
        select exists (select from user_profiles where user_id = :user
                and (profile_image_path = any(:urls) or header_image_path = any(:urls)))
            or exists (select from artist_profiles where user_id = :user and logo_path = any(:urls))
            or exists (select from promoter_profiles where user_id = :user and logo_path = any(:urls))
    """)
    return bool(connection.scalar(query, {"user": user_id, "urls": list(urls)}))


def path_access(connection: Connection, path: str) -> tuple[bool, bool | None]:
    """Whether the upload at a temp path is private, and whether it is held; None where no intake has read it yet."""
    row = connection.execute(PATH_ACCESS, {"path": path}).one()
    return bool(row.private), row.held


PATH_ACCESS = text("""
    select coalesce(bool_or(f.private), exists (select from media_uploads u where u.image_path = :path and u.private
        and not exists (select from media_files f where f.main_api_id = u.pending_id))) as private,
        bool_or(f.held) as held
    from media_files f where f.image_path = :path
""")


def checklists(connection: Connection, media_ids: Sequence[int]) -> dict[int, dict[Step, StepState]]:
    """The state of every step, by media id."""
    query = text(f"select media_id, {', '.join(Step)} from processing_checklist where media_id = any(:ids)")
    rows = connection.execute(query, {"ids": list(media_ids)}).mappings()
    return {row["media_id"]: {step: StepState(row[step]) for step in Step} for row in rows}


def pending_ids(connection: Connection, media_ids: Sequence[int]) -> list[int]:
    """The pending image ids of some media."""
    query = text("select main_api_id from media_files where id = any(:ids)")
    return list(connection.scalars(query, {"ids": list(media_ids)}))


def retriable(connection: Connection, pending_ids: Collection[int]) -> set[int]:
    """Those of some failed pending images that we would work on again: their items are not withdrawn."""
    query = text("""
        select f.main_api_id from media_files f join work_items w on w.queue = :queue and w.item_id = f.id
        where f.main_api_id = any(:ids) and w.error_code is distinct from :withdrawn
    """)
    values = {"queue": MEDIA.name, "ids": list(pending_ids), "withdrawn": WITHDRAWN}
    return set(connection.scalars(query, values))


def analysis(connection: Connection, media_id: int) -> dict[str, Any] | None:
    """The row of `media_ai_analysis` without the embedding; None where there is none."""
    query = text("select * from media_ai_analysis where media_id = :id")
    row = connection.execute(query, {"id": media_id}).mappings().one_or_none()
    return None if row is None else {key: value for key, value in row.items() if not key.startswith("embedding")}


def owner_context(connection: Connection, user_id: int) -> dict[str, Any]:
    """The owner of a site's images: the profile's texts, and the subjects of the catalogue's images."""
    profile = connection.execute(
        text("select display_name, bio, website, location from user_profiles where user_id = :id"), {"id": user_id}
    ).mappings()
    subjects = connection.execute(
        text("""
            select a.subject_matter from media_ai_analysis a join live_media f on f.id = a.media_id
            where f.user_id = :id and f.data_type = 'product' and a.subject_matter is not null
            order by f.id desc limit 10
        """),
        {"id": user_id},
    )
    found = {key: value for row in profile for key, value in row.items() if value}
    return {**found, "catalogue": [row.subject_matter for row in subjects]}


def images_of_day(connection: Connection, day: str, step: Step) -> dict[int, bool]:
    """The images uploaded on a day, and whether `step` of the checklist is completed."""
    query = text(f"""
        select f.id, c.{step} = 'completed' as completed
        from live_media f join processing_checklist c on c.media_id = f.id
        where f.upload_day = :day
    """)
    return {row.id: row.completed for row in connection.execute(query, {"day": day})}


def made_by_other_recipe(connection: Connection, day: str, recipe: str) -> list[Item]:
    """Finished images of a day whose variants were made by another recipe."""
    query = text("""
        select id, user_id from live_media
        where upload_day = :day and status = 'completed' and recipe is distinct from :recipe order by id
    """)
    rows = connection.execute(query, {"day": day, "recipe": recipe})
    return [Item(row.id, str(row.user_id), day) for row in rows]


def analysed_otherwise(
    connection: Connection, day: str, versions: Mapping[str, str], providers: Sequence[str]
) -> list[Item]:
    """Finished images of a day whose analysis failed, has another version of the question than `versions` has for their
    kind, or lacks an answer of one of `providers`."""
    query = text("""
        select f.id, f.user_id from live_media f join processing_checklist c on c.media_id = f.id
        left join media_ai_analysis a on a.media_id = f.id
        where f.upload_day = :day and f.status = 'completed' and (c.ai_visual_analysis = 'failed'
            or a.version is distinct from cast(:versions as jsonb) ->> f.kind or exists (
                select from unnest(cast(:providers as text[])) p where a.providers ->> p is distinct from 'ok'))
        order by f.id
    """)
    rows = connection.execute(query, {"day": day, "versions": json.dumps(versions), "providers": list(providers)})
    return [Item(row.id, str(row.user_id), day) for row in rows]


def different(connection: Connection, ids: Collection[int]) -> int:
    """How many different questions these images are: a site's depend on its owner, too."""
    query = text("""
        select count(distinct (coalesce(sha256, id::text), kind, case when data_type = 'sites' then user_id end))
        from media_files where id = any(:ids)
    """)
    return connection.scalar(query, {"ids": list(ids)}) or 0


# --- writing, inside a fence -----------------------------------------------------------------------------------------


def step_done(connection: Connection, claim: Claim, step: Step) -> None:
    """Mark a step as completed, and by whom."""
    query = text(f"""
        update processing_checklist set {step} = 'completed', {step}_attempts = {step}_attempts + 1, worker_id = :worker
        where media_id = :id
    """)
    connection.execute(query, {"id": claim.item_id, "worker": claim.owner[:50]})


def step_failed(connection: Connection, claim: Claim, step: Step, *, final: bool, counts: bool = True) -> None:
    """Count a failed try of a step (if `counts`), and mark the step as failed (if `final`)."""
    query = text(f"""
        update processing_checklist set {step} = :state, {step}_attempts = {step}_attempts + :n, worker_id = :worker
        where media_id = :id
    """)
    state = StepState.FAILED if final else StepState.PENDING
    values = {"id": claim.item_id, "state": state.value, "n": int(counts), "worker": claim.owner[:50]}
    connection.execute(query, values)


def retrieved(connection: Connection, media_id: int, values: dict[str, Any]) -> None:
    """Store properties of the original: file_size, sha256, mime_type, width, height, animated, bulk_path."""
    assignments = ", ".join(f"{name} = :{name}" for name in values)
    query = text(f"update media_files set {assignments}, status = 'processing' where id = :id")
    connection.execute(query, {**values, "id": media_id})


_JSON_COLUMNS = {
    "dominant_colors",
    "detected_objects",
    "mood_keywords",
    "raw_google_response",
    "raw_gpt4_response",
    "labels",
    "brand_colors",
    "site_context",
    "safe_search",
    "measured",
    "boxes",
    "providers",
    "answered_by",
}


def save_analysis(connection: Connection, media_id: int, values: dict[str, Any]) -> None:
    """Store the values of an analysis; columns that are not in `values` keep those of an earlier one. So does that of
    the embedding if it takes vectors of another model by now."""
    row = {name: json.dumps(value) if name in _JSON_COLUMNS else value for name, value in values.items()}
    if "embedding" in row and not holds(connection, values["answered_by"]["embed"], row["embedding"]):
        del row["embedding"]  # a rebuild has ended meanwhile, which embeds what lacks it
    casts = dict.fromkeys(_JSON_COLUMNS, "jsonb") | {"embedding": "vector"}
    columns = ", ".join(row)
    slots = ", ".join(f"cast(:{n} as {casts[n]})" if n in casts else f":{n}" for n in row)
    updates = ", ".join(f"{n} = excluded.{n}" for n in row)
    query = text(f"""
        insert into media_ai_analysis (media_id, {columns}) values (:media_id, {slots})
        on conflict (media_id) do update set {updates}
    """)
    connection.execute(query, {**row, "media_id": media_id})


def focus(connection: Connection, media_id: int) -> dict[str, Any] | None:
    """An image's focus; the row stays locked until the transaction ends."""
    query = text("select focus from media_files where id = :id for update")
    found: dict[str, Any] | None = connection.scalar(query, {"id": media_id})
    return found


def set_focus(connection: Connection, media_id: int, box: Sequence[float] | None) -> None:
    """Set a box by hand (left, top, right, bottom in fractions of width and height), or remove it."""
    focus = None if box is None else json.dumps({"box": list(box), "reason": "manual"})
    query = text("update media_files set focus = cast(:focus as jsonb) where id = :id")
    connection.execute(query, {"id": media_id, "focus": focus})


def set_private(connection: Connection, media_id: int, *, private: bool) -> None:
    """Make an image private (visible only with a signed URL) or public."""
    query = text("update media_files set private = :private where id = :id")
    connection.execute(query, {"id": media_id, "private": private})


def private_ones(connection: Connection, media_ids: Sequence[int], *, owner: int) -> set[int]:
    """The private ones of some media that belong to `owner`."""
    query = text("select id from media_files where id = any(:ids) and private and user_id = :owner")
    return set(connection.scalars(query, {"ids": list(media_ids), "owner": owner}))


def start_again(connection: Connection, pending_ids: Sequence[int]) -> list[Item]:
    """Reset the finished and failed images of some pending uploads: failed steps start again, and finished images will
    be reported again. Returns their items, to be enqueued."""
    query = text("""
        select id, user_id, upload_day from live_media
        where main_api_id = any(:ids) and status in ('failed', 'completed') order by id
    """)
    rows = connection.execute(query, {"ids": list(pending_ids)}).all()
    ids = [row.id for row in rows]
    connection.execute(_RESTART, {"ids": ids})
    again = text("update processing_checklist set update_callback = 'pending' where media_id = any(:ids)")
    connection.execute(again, {"ids": ids})
    return [Item(row.id, str(row.user_id), row.upload_day.isoformat()) for row in rows]


def replace_older(connection: Connection, media: MediaFile) -> list[int]:
    """Mark a user's older profile images (headers, logos) as replaced by this one; returns their ids."""
    if media.kind not in ALONE:
        return []
    query = text("""
        update media_files set replaced_at = now() where user_id = :user_id and kind = :kind and id < :id
        and status = 'completed' and replaced_at is null returning id
    """)
    return list(connection.scalars(query, {"user_id": media.user_id, "kind": media.kind, "id": media.id}))


def deleted_ones(connection: Connection, media_ids: Sequence[int]) -> set[int]:
    """Those of some media that were deleted."""
    query = text("select item from deletions where kind = 'media' and item = any(:ids)")
    return set(connection.scalars(query, {"ids": list(media_ids)}))


def deleted_uploads(connection: Connection, pending_ids: Sequence[int]) -> set[int]:
    """Those of some pending images whose media were deleted."""
    query = text("""
        select f.main_api_id from media_files f join deletions d on d.kind = 'media' and d.item = f.id
        where f.main_api_id = any(:ids)
    """)
    return set(connection.scalars(query, {"ids": list(pending_ids)}))


def completed(connection: Connection, media_id: int) -> None:
    """Mark an image as completed: the main API acknowledged the callback."""
    query = text("""
        update media_files set status = 'completed', error = null, callback_acknowledged_at = now() where id = :id
    """)
    connection.execute(query, {"id": media_id})
