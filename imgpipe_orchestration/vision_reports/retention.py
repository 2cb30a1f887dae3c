"""What of vision reports is taken away when it has grown old.

Analyses stay: their rows are small, and say what was delivered and must not be delivered again. So do the executions
that their latest outcome belongs to, which a backfill needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from imgpipe_orchestration.storage.rows import transaction

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

UPLOADS_HOURS = 48
"""Uploaded images go this long after their upload, once no unfinished batch needs them."""
_BATCH = 500


def forget_uploads(services: Services, most: int = 10_000) -> int:
    """Delete the images nobody needs any more. Returns how many.

    The rows go with their batch; one whose object is gone has no key.
    """
    return _in_batches(services, _UPLOADS, {"hours": UPLOADS_HOURS}, most)


def tidy(services: Services, days: float, most: int) -> int:
    """Delete images nobody needs, and executions and batches that ended `days` ago. Returns how many rows went."""
    removed = forget_uploads(services, most)
    for statement in (_EXECUTIONS, _BATCHES, _ORPHANS):
        removed += _in_batches(services, statement, {"days": days}, most)
    return removed


def _in_batches(services: Services, statement: str, values: dict[str, float], most: int) -> int:
    removed = 0
    while removed < most:
        with transaction(services.engine) as rows:
            gone = rows.execute(text(statement), {**values, "limit": min(_BATCH, most - removed)}).all()
            # Inside the transaction: an object that cannot be deleted now keeps its row, and goes next time.
            for row in gone:
                if row.object_key:
                    services.vision_bucket.delete(row.object_key)
        removed += len(gone)
        if len(gone) < _BATCH:
            break
    return removed


_UPLOADS = """
    with old as (
        select u.id, u.object_key from vision_uploads u
        where u.created_at < now() - make_interval(secs => :hours * 3600) and u.object_key <> ''
        and not exists (
            select from vision_batch_images i join vision_batches b on b.id = i.batch_id
            where i.image_id = u.image_id and b.status in ('queued', 'running'))
        order by u.created_at limit :limit for update of u skip locked
    ),
    emptied as (update vision_uploads u set object_key = '' from old where u.id = old.id)
    select object_key from old
"""

_EXECUTIONS = """
    delete from vision_executions where id in (
        select e.id from vision_executions e
        where e.finished_at < now() - make_interval(secs => :days * 86400)
        and not exists (select from vision_analyses a where a.execution_id = e.id)
        limit :limit for update skip locked)
    returning null as object_key
"""

_BATCHES = """
    delete from vision_batches where id in (
        select id from vision_batches
        where finished_at < now() - make_interval(secs => :days * 86400)
        and not exists (
            select from work_items w where w.queue = 'vision_batches' and w.item_id = vision_batches.id
            and w.state in ('waiting', 'claimed', 'failed'))
        limit :limit for update skip locked)
    returning report_key as object_key
"""

_ORPHANS = """
    delete from vision_uploads where id in (
        select u.id from vision_uploads u
        where u.object_key = '' and u.created_at < now() - make_interval(secs => :days * 86400)
        and not exists (select from vision_batch_images i where i.image_id = u.image_id)
        limit :limit for update skip locked)
    returning null as object_key
"""
