"""What our own analysis backend owns: batches with the submitted pictures, their views and the report."""

from __future__ import annotations

from sqlalchemy import Connection, text

from imgpipe_orchestration.lifecycle.kind import Aging, Kind, Rows
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.holdings import Holding, named_by, promised_by
from imgpipe_orchestration.vision_reports import retention
from imgpipe_orchestration.vision_reports.batches import QUEUE

PARTS = 21
"""Bits by which the number of a finding is longer than its batch's."""


def _erased(_: Services, connection: Connection, rows: Rows) -> None:
    ids = [row.id for row in rows]
    uploads = list(connection.scalars(_UPLOADS, {"ids": ids}))
    connection.execute(text("delete from vision_batches where id = any(:ids)"), {"ids": ids})  # which name the uploads
    connection.execute(text("delete from vision_uploads where id = any(:ids)"), {"ids": uploads})


# Pictures of no other batch: a client may submit one picture twice.
_ONLY_HERE = """
    from vision_batch_images i join vision_uploads u on u.image_id = i.image_id
    where i.batch_id = any(cast(:ids as bigint[])) and not exists (
        select from vision_batch_images o where o.image_id = i.image_id and o.batch_id <> all(cast(:ids as bigint[])))
"""
_UPLOADS = text(f"select u.id {_ONLY_HERE}")

_ROWS = text(f"""
    select b.id, cast(null as bigint) as user_id, 'vision_batches/' || b.id as what,
        array['reports/' || b.batch_id || '.html'] as addresses,
        array['reports/' || b.batch_id || '.html']
            || array(select u.object_key {_ONLY_HERE} and i.batch_id = b.id and u.object_key <> '') as keys,
        array['views/' || b.batch_id || '/'] as prefixes, '' as day,
        array(select 'vision_batches/' || i.batch_id || '/' || i.position from vision_batch_images i
            where i.batch_id = b.id) as bought
    from vision_batches b where b.id = any(cast(:ids as bigint[])) order by b.id for update of b
""")

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

BATCHES = Kind(
    name="vision_batches",
    pipeline="vision_reports",
    bucket=lambda services: services.vision_bucket,
    rows=_ROWS,
    tables={"vision_batches": "id", "vision_batch_images": "batch_id"},
    queues={QUEUE: "id"},
    judged={"findings": ("id", PARTS)},
    erased=_erased,
    expired=Aging(
        lambda settings: settings.vision_keep_days or None,
        "finished_at",
        """status in ('completed', 'failed') and not exists (select from vision_analyses a
            where a.batch_id = cast(t.batch_id as text) and a.status in ('waiting', 'submitted'))""",
    ),
    # Images and reports are named by their rows, views by an unfinished batch. What is missing is not made again.
    kept=lambda services: Holding(
        "vision_reports",
        services.vision_bucket,
        ("images/", "views/", "reports/"),
        named_by(services.engine, _NAMED),
        promised_by(services.engine, _PROMISED),
    ),
    tidy=lambda services, days: {"vision_reports": retention.tidy(services, days)},
)
