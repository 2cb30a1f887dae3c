"""What the avatars own: tasks with their people, and single people."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from imgpipe_orchestration.avatars import store
from imgpipe_orchestration.avatars.model import persona_prefix, task_prefix
from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.lifecycle.kind import Aging, Kind, Objects
from imgpipe_orchestration.moderation import verdicts
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import deletions
from imgpipe_orchestration.storage.deletions import DELETED, Thing
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


def _stop_tasks(services: Services, connection: Connection, ids: Sequence[int]) -> list[Thing]:
    """Also of tasks at work, which are cancelled."""
    tasks = list(connection.scalars(_TASKS, {"ids": sorted(ids)}))
    people = list(connection.scalars(_PEOPLE_OF, {"ids": tasks}))
    services.claims.withdraw(connection, store.DATA, tasks, DELETED, failed=True)
    services.claims.withdraw(connection, store.IMAGES, people, DELETED, failed=True)
    connection.execute(_CANCEL, {"ids": tasks})
    return [Thing(f"task_{id_}", id_, None) for id_ in tasks]


def _task_objects(_: Connection, ids: Sequence[int]) -> dict[int, Objects]:
    return {id_: Objects(prefixes=[task_prefix(id_)]) for id_ in ids}


def _erase_tasks(_: Services, connection: Connection, ids: Sequence[int]) -> None:
    people = connection.execute(_PEOPLE, {"tasks": list(ids), "ids": []}).all()
    bought = [f"task_{id_}" for id_ in ids] + [f"task_{row.task_id}/persona_{row.id}" for row in people]
    deletions.forget_answers(connection, "avatars", bought)
    deletions.forget_work(connection, [store.DATA.name], ids)
    deletions.forget_work(connection, [store.IMAGES.name], [row.id for row in people])
    verdicts.forget(connection, "briefs", ids)
    verdicts.forget(connection, "avatars", [row.id for row in people], parts=PARTS)
    connection.execute(text("delete from generation_tasks where id = any(:ids)"), {"ids": list(ids)})


def _stop_people(services: Services, connection: Connection, ids: Sequence[int]) -> list[Thing]:
    people = connection.execute(_PEOPLE, {"tasks": [], "ids": sorted(ids)}).all()
    services.claims.withdraw(connection, store.IMAGES, [row.id for row in people], DELETED, failed=True)
    connection.execute(_DROP_PEOPLE, {"ids": [row.id for row in people]})
    for task in sorted({row.task_id for row in people}):
        store.settle(connection, task)
    return [Thing(f"task_{row.task_id}/persona_{row.id}", row.id, None) for row in people]


def _people_objects(connection: Connection, ids: Sequence[int]) -> dict[int, Objects]:
    people = connection.execute(_PEOPLE, {"tasks": [], "ids": sorted(ids)})
    return {row.id: Objects(prefixes=[persona_prefix(row.task_id, row.id)]) for row in people}


def _erase_people(_: Services, connection: Connection, ids: Sequence[int]) -> None:
    """The answer that invented them is others' too, and stays until their task is deleted."""
    people = connection.execute(_PEOPLE, {"tasks": [], "ids": sorted(ids)}).all()
    deletions.forget_answers(connection, "avatars", [f"task_{row.task_id}/persona_{row.id}" for row in people])
    deletions.forget_work(connection, [store.IMAGES.name], ids)
    verdicts.forget(connection, "avatars", ids, parts=PARTS)
    connection.execute(text("delete from generation_results where id = any(:ids)"), {"ids": list(ids)})


def _holding(services: Services) -> Holding:
    """An object, also a bought picture, is named while its person exists (or its task, for a task's own objects). What
    is missing is not made again, because it would be bought again."""
    return Holding(
        name="avatars",
        bucket=services.avatars_bucket,
        prefixes=("avatars/",),
        named=named_by(services.engine, _NAMED),
        promised=promised_by(services.engine, _PROMISED),
    )


_TASKS = text("select id from generation_tasks where id = any(cast(:ids as bigint[])) order by id for update")

_PEOPLE_OF = text("select id from generation_results where task_id = any(cast(:ids as bigint[])) order by id")

_PEOPLE = text("""
    select id, task_id from generation_results
    where id = any(cast(:ids as bigint[])) or task_id = any(cast(:tasks as bigint[])) order by id for update
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

_OLD = text("""
    select id from generation_tasks t where status in ('completed', 'failed', 'cancelled')
    and finished_at <= now() - make_interval(secs => :days * 86400)
    and not exists (select from deletions d where d.kind = 'avatars' and d.item = t.id) order by id limit 100
""")

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
    stop=_stop_tasks,
    objects=_task_objects,
    erase=_erase_tasks,
    tables={"generation_tasks": "id", "generation_batches": "task_id", "generation_results": "task_id"},
    item_of="^avatars/task_([0-9]{1,18})/",
    expired=Aging(lambda settings: settings.avatars_keep_days or None, _OLD),
    holding=_holding,
)

PERSONAS = Kind(
    name="personas",
    pipeline="avatars",
    bucket=lambda services: services.avatars_bucket,
    stop=_stop_people,
    objects=_people_objects,
    erase=_erase_people,
    tables={"generation_results": "id"},
    item_of="^avatars/task_[0-9]{1,18}/persona_([0-9]{1,18})/",
)
