"""Which rows name which objects in the avatars' bucket, by the task id in each key's prefix."""

from __future__ import annotations

from sqlalchemy import text

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.garbage import Holding, named_by, promised_by


def holding(services: Services) -> Holding:
    """An object, also a bought picture, is named while its person exists (or its task, for a task's own objects). What
    is missing is not made again, because it would be bought again."""
    return Holding(
        name="avatars",
        bucket=services.avatars_bucket,
        prefixes=("avatars/",),
        named=named_by(services.engine, _NAMED),
        promised=promised_by(services.engine, _PROMISED),
    )


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
