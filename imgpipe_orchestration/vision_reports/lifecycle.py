"""What our own analysis backend owns: batches with the submitted pictures, their views and the report. When they go,
and what is judged of them: each finding, before a customer reads it in a report.

Analyses are kept: their rows are small, and say what was delivered and must not be delivered again. So is the latest
execution of each analysis, whose connection a backfill needs.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.lifecycle.kind import Aging, Kind, Rows
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.storage.history import in_batches, old_rows
from imgpipe_orchestration.storage.holdings import Holding, named_by, promised_by
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports.batches import QUEUE
from imgpipe_orchestration.wiring.services import Services

PARTS = 21
"""Bits by which the number of a finding is longer than its batch's."""


def tidy(services: Services, days: float) -> int:
    """Delete executions that ended `days` ago, and uploads of that age that no batch has. Returns how many rows."""
    removed = in_batches(services.engine, _OLD_EXECUTIONS, days)
    return removed + in_batches(services.engine, _ORPHANS, days, forget=services.vision_bucket.discard)


def _erased(_: Services, connection: Connection, rows: Rows) -> None:
    ids = [row.id for row in rows]
    uploads = list(connection.scalars(_UPLOADS, {"ids": ids}))
    connection.execute(text("delete from vision_batches where id = any(:ids)"), {"ids": ids})  # which name the uploads
    connection.execute(text("delete from vision_uploads where id = any(:ids)"), {"ids": uploads})


_OLD_EXECUTIONS = old_rows(
    "vision_executions",
    ended="finished_at",
    condition="not exists (select from vision_analyses a where a.execution_id = t.id)",
)
_ORPHANS = old_rows(
    "vision_uploads",
    ended="created_at",
    condition="not exists (select from vision_batch_images i where i.image_id = t.image_id)",
    returning="object_key",
)

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
            || array(select u.object_key {_ONLY_HERE} and i.batch_id = b.id) as keys,
        array['views/' || b.batch_id || '/'] as prefixes, '' as day,
        array(select 'vision_batches/' || i.batch_id || '/' || i.position from vision_batch_images i
            where i.batch_id = b.id) as bought
    from vision_batches b where b.id = any(cast(:ids as bigint[])) order by b.id
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
    tidy=lambda services, days: {"vision_reports": tidy(services, days)},
)


def finding_number(batch: int, position: int, index: int) -> int:
    """The number of a finding on an image of a batch; there are at most 30 on one."""
    return batch << PARTS | position << 5 | index


def words_of(finding: Mapping[str, Any]) -> str:
    """What a report quotes of a finding."""
    return f"{finding['title']}\n{finding['explanation']}"


def _finding(services: Services, number: int) -> str:
    query = text("select analysis from vision_batch_images where batch_id = :batch and position = :position")
    values = {"batch": number >> PARTS, "position": number >> 5 & 0xFFFF}
    with transaction(services.engine) as connection:
        analysis = connection.scalar(query, values)
    findings = (analysis or {}).get("findings", [])
    if number & 31 >= len(findings):
        raise NotFound(f"There is no finding {number}.")
    return words_of(findings[number & 31])


FINDINGS = Subject(
    "findings",
    BATCHES,
    "",
    _finding,
    named=lambda _, number: f"vision_batches/{number >> PARTS}/{number >> 5 & 0xFFFF}",
)
