"""What the media pipeline owns: images with their uploads, variants and analyses; and people's profiles. What is judged
of it: uploaded images."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from imgpipe_orchestration.errors import BadInput, NotFound
from imgpipe_orchestration.identity.model import Caller
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.lifecycle.kind import Aging, Exported, Kind, Rows
from imgpipe_orchestration.media import intake, model, pending, store, uploads
from imgpipe_orchestration.media.analyses import public_analysis
from imgpipe_orchestration.media.steps.callback import COLUMNS, put_in_place
from imgpipe_orchestration.media.steps.retrieve import original
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.storage.claims import Claims, Item, State
from imgpipe_orchestration.storage.deletions import REJECTED, Deletion
from imgpipe_orchestration.storage.history import in_batches, old_rows
from imgpipe_orchestration.storage.holdings import Holding, promised_by
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services


def _resumed(connection: Connection, restored: Sequence[Deletion]) -> None:
    replaced = [one.item for one in restored if one.why == "replaced"]  # or the next night would delete them again
    connection.execute(text("update media_files set replaced_at = null where id = any(:ids)"), {"ids": replaced})
    query = text("select id from media_files where id = any(:ids) and status = 'failed'")
    queued = {"ids": [one.item for one in restored if store.MEDIA.name in one.queues]}
    store.MEDIA.mirror(connection, list(connection.scalars(query, queued)), State.WAITING, None)
    without = connection.execute(_VECTOR_LOST, {"ids": [one.item for one in restored]}).all()
    items = [Item(row.id, str(row.user_id), row.upload_day.isoformat()) for row in without]
    Claims.enqueue(connection, store.REMAKE_ANALYSIS, items, again=True)


# Rebuilding the embeddings skips images in the trash.
_VECTOR_LOST = text("""
    select f.id, f.user_id, f.upload_day from media_files f join media_ai_analysis a on a.media_id = f.id
    where f.id = any(:ids) and f.status = 'completed' and a.embedding is null and a.answered_by ? 'embed'
""")


def _erased(services: Services, connection: Connection, rows: Rows) -> None:
    uploads = [row.upload for row in rows if row.upload > 0]
    with pending.joined(services, connection) as where:  # another worker may have reported a media id of its own
        reported = pending.reported_ids(where, uploads)
    urls = [model.smart_url(services.settings.smart_media_base_url, id_) for id_ in (*reported, *(r.id for r in rows))]
    urls += [path for row in rows for path in row.addresses]
    values = {"urls": urls, "users": [row.user_id for row in rows]}
    for table, column in COLUMNS:
        change = f"delete from {table}" if table.endswith("_media") else f"update {table} set {column} = null"
        connection.execute(text(f"{change} where {column} = any(:urls) and user_id = any(:users)"), values)
    for statement in _OF_UPLOADS:
        connection.execute(statement, {"uploads": uploads})
    # If `pending_images` is in another database, its row goes first: one that outlives ours would be registered again.
    with pending.joined(services, connection) as where:
        pending.remove(where, pending.t.c.id.in_(uploads))


def _adopt(services: Services, user_id: int, waiting: bool) -> None:
    """Register the user's uploads that no intake has seen: the pending ones if `waiting`, else all. Then they can be
    deleted like any image, and their temp paths answer 410."""
    which = [pending.t.c.user_id == user_id, *([pending.in_state(model.PendingStatus.PENDING)] if waiting else [])]
    for page in pending.pages(services, *which):
        with transaction(services.engine) as connection:
            known = intake.registered(connection, page)
            for upload in page:
                if upload.id not in known:
                    with suppress(BadInput):  # its path is of no known kind, so nothing serves it
                        _register(services, connection, upload)


def _prefixes_of(user_id: int) -> list[str]:
    folders = sorted({field.folder for field in model.FIELDS.values()})
    return [
        f"library/user_{user_id}/",
        f"{uploads.STAGING}{user_id}/",
        *(f"temp_images/{folder}/{user_id}-" for folder in folders),
    ]


def _exported(connection: Connection, row: RowMapping) -> Exported:
    found = store.analysis(connection, row["id"])
    removed = bool(row["background_removed"])
    record: dict[str, Any] = {
        "media_id": str(row["id"]),
        **{name: row[name] for name in ("kind", "original_name", "private", "width", "height", "focus")},
        "state": "replaced" if row["replaced_at"] else row["status"],
        "bytes": row["file_size"],
        "uploaded_at": row["created_at"],
        "analysis": public_analysis(found, background_removed=removed) if found else None,
    }
    name = row["original_name"] or f"{row['id']}.{row['image_path'].rpartition('.')[2]}"
    return Exported(record, name, row["bulk_path"] or row["image_path"].lstrip("/"))


def owned(connection: Connection, media_id: int, caller: Caller) -> store.MediaFile:
    """An image that belongs to the caller, or any image where the caller is not a user.

    Raises:
        NotFound: there is no such image, or it is somebody else's.
    """
    media = store.media_file(connection, media_id)
    if caller.user not in {None, media.user_id}:
        raise NotFound(f"There is no media {media_id}.")
    return media


def set_private(services: Services, media_id: int, caller: Caller, *, private: bool) -> str:
    """Keep an image private, or show it to everybody; returns which. A CDN is told."""
    with transaction(services.engine) as connection:
        owned(connection, media_id, caller)
        query = text("update media_files set private = :private where id = :id")
        connection.execute(query, {"id": media_id, "private": private})
        cdn.order(services, connection, [f"{MEDIA.tag}{media_id}"])
    return "private" if private else "public"


def register_now(services: Services, pending_id: int, *, user: int | None) -> int | None:
    """The media id of an upload, which is registered if no intake has seen it. None if there is no such upload of the
    user (user None: of anybody)."""
    with transaction(services.pending_engine) as connection:
        found = pending.find(connection, pending.t.c.id == pending_id)
    if not found or user not in {None, found[0].user_id}:
        return None
    with transaction(services.engine) as connection:
        _register(services, connection, found[0])
        media = store.media_of_pending(connection, pending_id)
    return None if media is None else media.id


def _register(services: Services, connection: Connection, upload: pending.PendingImage) -> None:
    """Register an upload, and queue it if an intake would."""
    new = intake.register(services, connection, upload)
    if new is not None and upload.status is model.PendingStatus.PENDING:
        item = Item(new, tenant=str(upload.user_id), partition=upload.day)
        services.claims.enqueue(connection, store.MEDIA, [item])


def _forget_user(services: Services, connection: Connection, user_id: int) -> int:
    """Delete the profile, and what is left of uploads that never became an image."""
    removed = sum(connection.execute(statement, {"user": user_id}).rowcount for statement in _OF_PEOPLE)
    with pending.joined(services, connection) as where:
        removed += pending.remove(where, pending.t.c.user_id == user_id)
    return removed


# Temp files are in use until their URLs are replaced, and originals and variants as long as their rows name them. Files
# under `staging/` are not: a day later no upload is still to be committed.
def _named(services: Services, keys: Sequence[str]) -> set[str]:
    temp = [f"/{key}" for key in keys if key.startswith("temp_images/")]
    named: set[str] = set()
    if temp:
        with transaction(services.pending_engine) as connection:
            found = pending.find(connection, pending.t.c.image_path.in_(temp))
        named = {image.image_path[1:] for image in found if image.status is not model.PendingStatus.COMPLETE}
    others = [key for key in keys if not key.startswith(("temp_images/", uploads.STAGING))]
    with transaction(services.engine) as connection:
        return named | set(connection.scalars(_NAMED, {"keys": others}))


# All objects of a finished image, as its rows name them. A run in progress may have stored some that no row names yet,
# so for an unfinished image the bucket is listed as well. A path that is not a temp path is another worker's.
_ROWS = text("""
    select f.id, f.user_id, 'media/' || f.id as what, array[cast(f.image_path as text)] as addresses,
        array_remove(array[substring(f.image_path from '^/(temp_images/[a-z]+/[^/]+)$'), f.bulk_path,
            (select u.object_key from media_uploads u where u.user_id = f.user_id and u.pending_id = f.main_api_id
                limit 1)], null)
            || array(select v.object_key from media_variants v where v.media_id = f.id) as keys,
        case when f.status <> 'completed' or exists (select from deletions d
                where d.kind = 'media' and d.item = f.id and cardinality(d.queues) > 0)
            then array['library/user_' || f.user_id || '/' || f.data_type || '/img/' || f.id || '-',
                'bulk/' || f.upload_day || '/' || f.id || '.'] else '{}' end as prefixes,
        array['media/' || f.id, 'media/' || f.id || '/canary'] as bought,
        cast(f.upload_day as text) as day, f.main_api_id as upload
    from media_files f where f.id = any(cast(:ids as bigint[])) order by f.id
""")

_OF_UPLOADS = [
    text(f"delete from {table} where pending_id = any(:uploads)")
    for table in ("reported_analyses", "upload_traces", "media_uploads")
]

_OF_PEOPLE = [
    text(f"delete from {table} where user_id = :user")
    for table in (*sorted({table for table, _ in COLUMNS}), "media_uploads")
]
"""In the order in which the commit of an upload locks them, with which it could deadlock."""

# Keys contain the image's id (`library/user_7/product/img/12-detail-0123456789ab.avif`, `bulk/2026-01-31/12.jpg`), so
# each takes a look-up by primary key, however many images there are. Keys of another form count as in use.
_NAMED = text(r"""
    with asked as (
        select key, cast(coalesce(substring(key from '^library/.*/([0-9]{1,18})-[^/]*$'),
            substring(key from '^bulk/[0-9-]+/([0-9]{1,18})[.][^/]*$')) as bigint) as id
        from unnest(cast(:keys as text[])) as key
    )
    select key from asked where id is null
    or exists (select from media_variants v where v.media_id = asked.id and v.object_key = asked.key)
    or exists (select from media_files f where f.id = asked.id and f.bulk_path = asked.key)
""")

# A page has whole images: all of an image's promises have the same `row`, so a page must not end between them.
_PROMISED = text("""
    with page as (
        select id, bulk_path, file_size from media_files f where id > :after and status = 'completed'
        and (bulk_path is not null or exists (select from media_variants v where v.media_id = f.id))
        order by id limit :limit / 20 + 1
    )
    select id, bulk_path, file_size from page where bulk_path is not null
    union all
    select page.id, v.object_key, v.bytes from page join media_variants v on v.media_id = page.id
    order by 1
""")

# A profile may show an image that has a successor: one that was rejected and came back.
_SHOWN = "(" + " or ".join(
    f"exists (select from {table} p where p.user_id = t.user_id"
    f" and (p.{column} = t.image_path or p.{column} like '%/' || t.id || '?size=%'))"
    for table, column in COLUMNS
    if not table.endswith("_media")
) + ")"  # fmt: skip

MEDIA = Kind(
    name="media",
    pipeline="media",
    bucket=lambda services: services.media_bucket,
    rows=_ROWS,
    tables={
        "media_files": "id",
        "processing_checklist": "media_id",
        "media_ai_analysis": "media_id",
        "media_variants": "media_id",
        "media_colours": "media_id",
        "media_callers": "media_id",
    },
    queues=dict.fromkeys((store.MEDIA, store.HEALING, *store.AGAIN, store.CANARY), "id") | {store.URLS: "upload"},
    undated=store.OF_NO_DAY,
    judged={"media": ("id", 0)},
    erased=_erased,
    resumed=_resumed,
    ready="(recipe is not null or status = 'completed')",
    item_of=r"^(?:library/.*/([0-9]{1,18})-[^/]*|bulk/[0-9-]+/([0-9]{1,18})[.][^/]*)$",
    live="live_media",
    adopt=_adopt,
    prefixes_of=_prefixes_of,
    exported=_exported,
    folder="originals",
    superseded=Aging(
        lambda settings: None if settings.replaced_days == "keep" else settings.replaced_days,
        "replaced_at",
        """exists (select from live_media n where n.user_id = t.user_id and n.kind = t.kind and n.id > t.id
            and n.status = 'completed' and not n.held) and not """  # its successor may wait for a verdict, or be gone
        + _SHOWN,
    ),
    forget_user=_forget_user,
    tag="media-",
    kept=lambda services: Holding(
        "media",
        services.media_bucket,
        ("temp_images/", uploads.STAGING, "bulk/", "library/"),
        lambda keys: _named(services, keys),
        promised_by(services.engine, _PROMISED),
        sized=True,
        is_original=lambda promise: promise.key.startswith("bulk/"),
    ),
    remake=store.REMAKE_VARIANTS,
    tidy=lambda services, days: {
        # Kept for a day, so that a late commit is told so, and a repeated one gets the same answer.
        "presigned_uploads": in_batches(services.engine, uploads.FORGET, days=1),
        # Of uploads that another worker processed.
        "upload_traces": in_batches(
            services.engine, old_rows("upload_traces", key="pending_id", ended="created_at"), days
        ),
    },
)


# --- what is judged ---------------------------------------------------------------------------------------------------


def _picture(services: Services, media_id: int) -> bytes:
    with transaction(services.engine) as connection:
        media = store.media_file(connection, media_id)
    return original(services, media)


def _facts(connection: Connection, media_id: int) -> tuple[int | None, str]:
    media = store.media_file(connection, media_id)
    return media.user_id, media.sha256 or ""


def _rejected(services: Services, connection: Connection, media_id: int) -> None:
    """Show the image before a rejected profile image (header, logo) again, if the user has one."""
    media = store.media_file(connection, media_id)
    before = store.last_completed(connection, media.user_id, media.kind, but=media_id)
    if media.kind not in store.ALONE or before is None:
        return
    base = services.settings.smart_media_base_url
    ours = (model.smart_url(base, media_id), media.image_path)
    if sum(put_in_place(connection, url, model.smart_url(base, before)) for url in ours):
        connection.execute(text("update media_files set replaced_at = null where id = :id"), {"id": before})


def _approved(services: Services, connection: Connection, media_id: int) -> None:
    """Show the image in place of the one before it, or of later ones that were rejected; an unfinished one by its temp
    path, like a new upload."""
    media = store.media_file(connection, media_id)
    before = store.last_completed(connection, media.user_id, media.kind, but=media_id)
    failed = media.status is model.MediaStatus.FAILED
    if media.kind not in store.ALONE or failed or (before or 0) > media_id:
        return
    base, finished = services.settings.smart_media_base_url, media.status is model.MediaStatus.COMPLETED
    own = model.smart_url(base, media_id) if finished else media.image_path
    values = {"before": before, "id": media_id, "user_id": media.user_id, "kind": media.kind}
    rows = connection.execute(_SHOWN_INSTEAD, values).all()
    others = [url for row in rows for url in (model.smart_url(base, row.id), row.image_path)]
    if sum(put_in_place(connection, url, own) for url in others) and finished:
        query = "update media_files set replaced_at = case when id = :before then now() end where id in (:before, :id)"
        connection.execute(text(query), values)


_SHOWN_INSTEAD = text(f"""
    select id, image_path from media_files f where id = :before or user_id = :user_id and kind = :kind and id > :id
    and exists (select from deletions d where d.what = 'media/' || f.id and starts_with(d.why, '{REJECTED}'))
""")

UPLOADED = Subject("media", MEDIA, "media_files", _picture, _facts, rejected=_rejected, approved=_approved)
