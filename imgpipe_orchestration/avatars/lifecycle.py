"""What the avatars own: tasks with their people, and single people."""

from __future__ import annotations

from sqlalchemy import Connection, text

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.lifecycle.kind import Aging, Kind, Rows
from imgpipe_orchestration.storage.holdings import Holding, named_by, promised_by

PARTS = 10
"""Bits by which the number of a person's picture is longer than the person's."""


def name_of(connection: Connection, persona: int) -> str:
    """The name of a person, as the ledger has it.

    Raises:
        NotFound: there is no such person.
    """
    query = text("select task_id from generation_results where id = :id")
    task = connection.scalar(query, {"id": persona})
    if task is None:
        raise NotFound(f"There is no person {persona}.")
    return f"task_{task}/persona_{persona}"


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
    where t.id = any(cast(:ids as bigint[])) order by t.id for update of t
""")

# The answer that invented a person is others' too, and stays until their task is deleted.
_PEOPLE = text("""
    select id, cast(null as bigint) as user_id, 'task_' || task_id || '/persona_' || id as what,
        cast('{}' as text[]) as addresses, cast('{}' as text[]) as keys,
        array['avatars/task_' || task_id || '/persona_' || id || '/'] as prefixes,
        array['task_' || task_id || '/persona_' || id] as bought, '' as day, task_id as task
    from generation_results where id = any(cast(:ids as bigint[])) order by id for update
""")

_CANCEL = text("""
    with ended as (
        update generation_tasks set status = 'cancelled', finished_at = coalesce(finished_at, now())
        where id = any(:ids) and status not in ('completed', 'failed', 'cancelled') returning id
    )
    update generation_results set status = 'cancelled', finished_at = now()
    where status = 'pending' and task_id in (select id from ended)
""")

_DROP_PEOPLE = text("""
    update generation_results set status = 'cancelled', finished_at = now()
    where id = any(:ids) and status = 'pending'
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
        select r.id, r.base_object, r.grid_object from generation_results r
        join generation_tasks t on t.id = r.task_id
        where r.id > :after and r.status = 'completed' and t.images_removed_at is null
        and (r.base_object is not null or r.grid_object is not null) order by r.id limit :limit / 2
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
    # Tasks at work are cancelled.
    stopped=lambda connection, rows: connection.execute(_CANCEL, {"ids": [row.id for row in rows]}).close(),
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
    item_of="^avatars/task_[0-9]{1,18}/persona_([0-9]{1,18})/",
)
