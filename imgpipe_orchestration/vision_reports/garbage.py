"""Which rows name which objects of the vision reports' bucket: uploaded images, views of running batches, reports."""

from __future__ import annotations

from sqlalchemy import text

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.garbage import Holding, named_by, promised_by


def holding(services: Services) -> Holding:
    """Images and reports are named by their rows, views by an unfinished batch. What is missing is not made again."""
    return Holding(
        name="vision_reports",
        bucket=services.vision_bucket,
        prefixes=("images/", "views/", "reports/"),
        named=named_by(services.engine, _NAMED),
        promised=promised_by(services.engine, _PROMISED),
    )


# Keys: images/<id>.jpg, views/<batch>/<n>.jpg, reports/<batch>.html.
_NAMED = text(r"""
    with asked as (
        select key, split_part(key, '/', 1) as folder, cast(substring(key from
            '^[a-z]+/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})[/.]') as uuid) as id
        from unnest(cast(:keys as text[])) as key
    )
    select key from asked where id is null
    or (folder = 'images' and exists (
        select from vision_uploads u where u.image_id = asked.id and u.object_key = asked.key))
    or (folder = 'views' and exists (
        select from vision_batches b where b.batch_id = asked.id and b.status in ('queued', 'running')))
    or (folder = 'reports' and exists (
        select from vision_batches b where b.batch_id = asked.id
        and (b.report_key = asked.key or b.status in ('queued', 'running'))))
""")

_PROMISED = text("""
    select id, report_key from vision_batches
    where id > :after and status = 'completed' and report_key is not null order by id limit :limit
""")
