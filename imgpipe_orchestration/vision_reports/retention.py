"""Removes old rows and objects of vision reports.

Analyses are kept: their rows are small, and say what was delivered and must not be delivered again. So is the latest
execution of each analysis, whose connection a backfill needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import text

from imgpipe_orchestration.storage.history import MOST, in_batches, old_rows
from imgpipe_orchestration.storage.rows import transaction

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

UPLOADS_HOURS = 48
"""Uploaded images go this long after their upload, once no unfinished batch needs them."""
_BATCH = 500


def tidy(services: Services, days: float) -> int:
    """Delete uploads that no batch needs, and executions and batches that ended `days` ago. Returns how many rows."""
    removed = _forget_uploads(services) + in_batches(services.engine, _EXECUTIONS, days)
    removed += in_batches(services.engine, _BATCHES, days, forget=partial(_discard, services))
    return removed + in_batches(services.engine, _ORPHANS, days)


def _forget_uploads(services: Services) -> int:
    """Delete the objects of uploads that no unfinished batch needs. Returns how many.

    Their rows get an empty key, and are removed with their batch.
    """
    removed = 0
    while removed < MOST:
        with transaction(services.engine) as rows:
            gone = rows.scalars(_UPLOADS, {"hours": UPLOADS_HOURS, "limit": _BATCH}).all()
        _discard(services, gone)
        removed += len(gone)
        if len(gone) < _BATCH:
            break
    return removed


def _discard(services: Services, keys: Sequence[str | None]) -> None:
    services.vision_bucket.discard(key for key in keys if key)


_UPLOADS = text("""
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
""")

_EXECUTIONS = old_rows(
    "vision_executions",
    ended="finished_at",
    condition="not exists (select from vision_analyses a where a.execution_id = t.id)",
)
_BATCHES = old_rows(
    "vision_batches",
    ended="finished_at",
    condition="""not exists (select from work_items w where w.queue = 'vision_batches' and w.item_id = t.id
        and w.state in ('waiting', 'claimed', 'failed'))""",
    returning="report_key",
)
_ORPHANS = old_rows(
    "vision_uploads",
    ended="created_at",
    condition="object_key = '' and not exists (select from vision_batch_images i where i.image_id = t.image_id)",
)
