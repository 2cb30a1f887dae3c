"""What our own analysis backend owns: batches with the submitted pictures, their views and the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import Connection, text

from imgpipe_orchestration.lifecycle.kind import Aging, Kind, Objects
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import DELETED, Thing
from imgpipe_orchestration.storage.holdings import Holding, named_by, promised_by
from imgpipe_orchestration.vision_reports import retention
from imgpipe_orchestration.vision_reports.batches import QUEUE

PARTS = 21
"""Bits by which the number of a finding is longer than its batch's."""


def _stop(services: Services, connection: Connection, ids: Sequence[int]) -> list[Thing]:
    rows = connection.execute(_ROWS, {"ids": sorted(ids)}).all()
    services.claims.withdraw(connection, QUEUE, [row.id for row in rows], DELETED, failed=True)
    return [Thing(f"vision_batches/{row.id}", row.id, None, [f"reports/{row.batch_id}.html"]) for row in rows]


def _objects(connection: Connection, ids: Sequence[int]) -> dict[int, Objects]:
    pictures: dict[int, list[str]] = defaultdict(list)
    rows = connection.execute(_ROWS, {"ids": sorted(ids)}).all()
    for row in connection.execute(_PICTURES, {"ids": list(ids)}):
        pictures[row.batch_id].append(row.object_key)
    return {
        row.id: Objects([*pictures[row.id], f"reports/{row.batch_id}.html"], [f"views/{row.batch_id}/"]) for row in rows
    }


def _erase(_: Services, connection: Connection, ids: Sequence[int]) -> None:
    bought = list(connection.scalars(_BOUGHT, {"ids": list(ids)}))
    deletions.forget_answers(connection, "vision_reports", bought)
    deletions.forget_work(connection, [QUEUE.name], ids)
    verdicts.forget(connection, "findings", ids, parts=PARTS)
    uploads = list(connection.scalars(_UPLOADS, {"ids": list(ids)}))
    connection.execute(text("delete from vision_batches where id = any(:ids)"), {"ids": list(ids)})
    connection.execute(text("delete from vision_uploads where id = any(:ids)"), {"ids": uploads})


def _holding(services: Services) -> Holding:
    """Images and reports are named by their rows, views by an unfinished batch. What is missing is not made again."""
    return Holding(
        name="vision_reports",
        bucket=services.vision_bucket,
        prefixes=("images/", "views/", "reports/"),
        named=named_by(services.engine, _NAMED),
        promised=promised_by(services.engine, _PROMISED),
    )


_ROWS = text("""
    select id, batch_id from vision_batches where id = any(cast(:ids as bigint[])) order by id for update
""")

# Pictures of no other batch: a client may submit one picture twice.
_ONLY_HERE = """
    from vision_batch_images i join vision_uploads u on u.image_id = i.image_id
    where i.batch_id = any(cast(:ids as bigint[])) and not exists (
        select from vision_batch_images o where o.image_id = i.image_id and o.batch_id <> all(cast(:ids as bigint[])))
"""
_PICTURES = text(f"select i.batch_id, u.object_key {_ONLY_HERE} and u.object_key <> ''")
_UPLOADS = text(f"select u.id {_ONLY_HERE}")

_BOUGHT = text("""
    select 'vision_batches/' || batch_id || '/' || position from vision_batch_images
    where batch_id = any(cast(:ids as bigint[]))
""")

_OLD = text("""
    select id from vision_batches b where status in ('completed', 'failed')
    and finished_at <= now() - make_interval(secs => :days * 86400)
    and not exists (select from deletions d where d.kind = 'vision_batches' and d.item = b.id)
    and not exists (select from vision_analyses a
        where a.batch_id = cast(b.batch_id as text) and a.status in ('waiting', 'submitted'))
    order by id limit 100
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
    stop=_stop,
    objects=_objects,
    erase=_erase,
    tables={"vision_batches": "id", "vision_batch_images": "batch_id"},
    expired=Aging(lambda settings: settings.vision_keep_days or None, _OLD),
    holding=_holding,
    tidy=lambda services, days: {"vision_reports": retention.tidy(services, days)},
)
