"""What the avatars own: tasks with their people, and single people. What is judged of them: the brief before the first
picture is paid for, and each of a person's five pictures before it is published."""

from pathlib import Path

from sqlalchemy import Connection, text

from imgpipe_orchestration.avatars import records, store
from imgpipe_orchestration.avatars.drawing import KEPT, bought, buyer_of
from imgpipe_orchestration.avatars.records import Persona
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.lifecycle.kind import Aging, Kind, Rows
from imgpipe_orchestration.moderation.model import Subject
from imgpipe_orchestration.storage.holdings import Holding, named_by, promised_by
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

PARTS = 10
"""Bits by which the number of a person's picture is longer than the person's."""
KEPT_DAYS = 7
"""How long the people of cancelled and failed tasks stay, with their pictures."""


def name_of(connection: Connection, persona: int) -> str:
    """The name of a person, as the ledger has it; raises as `records.persona`."""
    return buyer_of(records.persona(connection, persona)).item


def strays(services: Services) -> list[Path]:
    """Pictures on this machine of people who are gone: of workers that were killed, or too late."""
    files = {file: file.name.partition("-")[0] for file in (services.settings.imgpipe_data_dir / KEPT).glob("*")}
    query = text("select cast(id as text) from generation_results where id = any(cast(:ids as bigint[]))")
    with transaction(services.engine) as connection:
        there = set(connection.scalars(query, {"ids": [number for number in files.values() if number.isdecimal()]}))
    return [file for file, number in files.items() if number not in there]


def _drop_people(connection: Connection, rows: Rows) -> None:
    connection.execute(_DROP_PEOPLE, {"ids": [row.id for row in rows]})
    for task in sorted({row.task for row in rows}):
        store.settle(connection, task)


_TASKS = text("""
    select t.id, cast(null as bigint) as user_id, 'task_' || t.id as what, cast('{}' as text[]) as addresses,
        cast('{}' as text[]) as keys, array['avatars/task_' || t.id || '/'] as prefixes, '' as day, p.people,
        array['task_' || t.id] || array(select 'task_' || t.id || '/persona_' || id from unnest(p.people) id) as bought
    from generation_tasks t
    cross join lateral (select array(select r.id from generation_results r where r.task_id = t.id) as people) p
    where t.id = any(cast(:ids as bigint[])) order by t.id
""")

# The manifest goes with each of its people, and is written anew for the others. The answer that invented a person is
# others' too, and stays until their task is deleted.
_PEOPLE = text("""
    select id, cast(null as bigint) as user_id, 'task_' || task_id || '/persona_' || id as what,
        cast('{}' as text[]) as addresses, cast('{}' as text[]) as keys,
        array['avatars/task_' || task_id || '/persona_' || id || '/',
            'avatars/task_' || task_id || '/manifest.json'] as prefixes,
        array['task_' || task_id || '/persona_' || id] as bought, '' as day, task_id as task
    from generation_results where id = any(cast(:ids as bigint[])) order by id
""")

_DROP_PEOPLE = text("""
    update generation_results set status = 'cancelled', finished_at = now()
    where id = any(:ids) and status = 'pending'
""")

# Answers are kept for a day, and say the brief.
_FORGET_ANSWERS = text("""
    delete from kept_answers a using generation_tasks t where t.id = any(:ids)
    and a.route = 'avatars/tasks' and a.answer ->> 'task_id' = cast(t.task_id as text)
""")

# An object, also a bought picture, is named while its person exists (or its task, for a task's own objects).
_NAMED = text(r"""
    with asked as (
        select key, cast(substring(key from '^avatars/task_([0-9]{1,18})/') as bigint) as task,
            cast(substring(key from '^avatars/task_[0-9]{1,18}/persona_([0-9]{1,18})/') as bigint) as person
        from unnest(cast(:keys as text[])) as key
    )
    select key from asked where task is null
    or (person is null and exists (select from generation_tasks t where t.id = asked.task))
    or exists (select from generation_results r where r.id = asked.person and r.task_id = asked.task)
""")

_PROMISED = text("""
    with page as (
        select id, base_object, grid_object from generation_results
        where id > :after and status = 'completed'
        and (base_object is not null or grid_object is not null) order by id limit :limit / 2
    )
    select id, base_object from page where base_object is not null
    union all
    select id, grid_object from page where grid_object is not null
    order by 1
""")

TASKS = Kind(
    name="avatars",
    pipeline="avatars",
    bucket=lambda services: services.avatars_bucket,
    rows=_TASKS,
    tables={"generation_tasks": "id", "generation_batches": "task_id", "generation_results": "task_id"},
    queues={store.DATA: "id", store.IMAGES: "people"},
    judged={"briefs": ("id", 0), "avatars": ("people", PARTS)},
    stopped=lambda connection, rows: store.end_cancelled(connection, [row.id for row in rows]),
    erased=lambda _, connection, rows: connection.execute(_FORGET_ANSWERS, {"ids": [row.id for row in rows]}),
    item_of="^avatars/task_([0-9]{1,18})/",
    expired=Aging(
        lambda settings: settings.avatars_keep_days or None,
        "finished_at",
        "status in ('completed', 'failed', 'cancelled')",
    ),
    # What is missing is not made again, because it would be bought again.
    kept=lambda services: Holding(
        "avatars",
        services.avatars_bucket,
        ("avatars/",),
        named_by(services.engine, _NAMED),
        promised_by(services.engine, _PROMISED),
    ),
)

PERSONAS = Kind(
    name="personas",
    pipeline="avatars",
    bucket=lambda services: services.avatars_bucket,
    rows=_PEOPLE,
    tables={"generation_results": "id"},
    queues={store.IMAGES: "id"},
    judged={"avatars": ("id", PARTS)},
    stopped=_drop_people,
    erased=lambda _, connection, rows: store.forget(connection, sorted({row.task for row in rows})),
    strays=strays,
    item_of="^avatars/task_[0-9]{1,18}/persona_([0-9]{1,18})/",
    # By the task's end: until then everybody in it can be tried again.
    expired=Aging(
        lambda _: KEPT_DAYS,
        "(select finished_at from generation_tasks where id = t.task_id and status in ('failed', 'cancelled'))",
    ),
)


def brief_of(services: Services, task: int) -> str:
    """What a task asked for; raises as `records.get`."""
    with transaction(services.engine) as connection:
        return records.get(connection, task).brief


def picture_number(persona: Persona, cell: int | None = None) -> int:
    """The number of the selfie, or of a picture that is cut from the grid: others are bought for each try and edition,
    and judged anew."""
    tries = persona.base_tries if cell is None else persona.grid_tries
    return persona.id << PARTS | (cell or 0) << 8 | (persona.edition & 31) << 3 | (tries & 3) << 1 | (cell is not None)


def _picture(services: Services, number: int) -> bytes:
    with transaction(services.engine) as connection:
        persona = records.persona(connection, number >> PARTS)
    key = persona.grid_object if number & 1 else persona.base_object
    if not key or (number & 1 and not persona.split):
        raise NotFound(f"Person {persona.id} has no such picture any more.")
    data = bought(services, key)
    if not number & 1:
        return data
    from imgpipe_orchestration.imaging.portraits.finishing import these

    left, top, right, bottom = (persona.split or [])[number >> 8 & 3]
    return services.workshop.call(these, data, [(left, top, right, bottom)], "")[0].png


def _published(connection: Connection, number: int) -> int | None:
    """The person of a picture that is public; whichever try it was of, `_picture` shows the reviewer the last one."""
    name = f"image_{number >> 8 & 3}" if number & 1 else "base"
    query = text("select id from generation_results where id = :id and jsonb_exists(images, :name)")
    return number >> PARTS if connection.scalar(query, {"id": number >> PARTS, "name": name}) else None


def _drawn(connection: Connection, task: int) -> int | None:
    """A task for whose people pictures were bought: it is too late for them to fail by its brief."""
    query = text("select 1 from generation_results where task_id = :id and (base_object is not null or images <> '{}')")
    return task if connection.scalar(query, {"id": task}) else None


BRIEFS = Subject("briefs", TASKS, "", brief_of, named=lambda _, task: f"task_{task}", published=_drawn)
PORTRAITS = Subject(
    "avatars",
    PERSONAS,
    "",
    _picture,
    named=lambda rows, number: name_of(rows, number >> PARTS),
    published=_published,
)
