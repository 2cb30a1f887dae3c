"""Queries for tasks (`generation_tasks`), their people (`generation_results`) and the questions asked for them
(`generation_batches`), and daily totals."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Connection, Row, text

from imgpipe_orchestration.avatars.model import ENDED, PersonaData, PersonaStatus, Step, TaskStatus, name_key
from imgpipe_orchestration.errors import NotFound


class TaskFacts(BaseModel):
    """What is public of a row of `generation_tasks`."""

    task_id: str
    status: TaskStatus
    brief: str
    language: str
    style: str
    seed: int
    urgent: bool
    waiting_for: str | None
    error_log: str | None
    manifest_url: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Task(TaskFacts):
    """One row of `generation_tasks`. `id` is the row's number, `task_id` the public id."""

    id: int
    persona_count: int


class PersonaFacts(BaseModel):
    """What is public of a row of `generation_results`."""

    firstname: str | None
    lastname: str | None
    gender: str | None
    age: int | None
    nationality: str | None
    occupation: str | None
    bio: str | None
    appearance: str | None
    status: PersonaStatus
    step: int
    error: str | None
    image_prompt: str | None
    base_image_url: str | None
    image_1_url: str | None
    image_2_url: str | None
    image_3_url: str | None
    image_4_url: str | None
    standin: bool


class Persona(PersonaFacts):
    """One row of `generation_results`, with its task's public id, style, urgency and day (UTC, `YYYY-MM-DD`).

    `base_object` and `grid_object` are the keys of the bought pictures; `images` describes the public ones by name
    (`base`, `image_0` ...); `split` has the cells of the grid, in pixels.
    """

    id: int
    task_id: int
    public_task_id: str
    style: str
    urgent: bool
    day: str
    position: int
    base_object: str | None
    grid_object: str | None
    base_tries: int
    grid_tries: int
    edition: int
    split: list[list[int]] | None
    images: dict[str, Any]
    quality: dict[str, Any]
    model: str | None

    @property
    def name(self) -> str:
        """Full name, or the number of a person who could not be invented."""
        return f"{self.firstname} {self.lastname}" if self.firstname else f"persona {self.position + 1}"


@dataclass(frozen=True, slots=True)
class Question:
    """One question to Flowise, for some positions of the task. `number` counts the task's questions, from 0."""

    number: int
    round: int
    positions: tuple[int, ...]
    asked: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Day:
    """One day: people completed and failed, paid calls, US dollars (calls of unknown price count as 0)."""

    day: date
    completed: int
    failed: int
    calls: int
    cost_usd: Decimal
    standin: bool


COLUMNS = ", ".join(Task.model_fields)
ENDED_SQL = ", ".join(f"'{status}'" for status in ENDED)
IS_THERE = "not exists (select from deletions d where d.kind = 'personas' and d.item = r.id)"
"""SQL that is false for a person `r` who was deleted, also before the purge."""
_OF_TASK = ("public_task_id", "style", "urgent", "day")
_OWN = ", ".join(f"r.{name}" for name in Persona.model_fields if name not in _OF_TASK)
_PEOPLE = f"""
    select {_OWN}, t.task_id as public_task_id, t.style, t.urgent,
        to_char(t.created_at at time zone 'UTC', 'YYYY-MM-DD') as day
    from generation_results r join generation_tasks t on t.id = r.task_id
"""


def task_of(row: Row[Any]) -> Task:
    return Task(**row._asdict())


def get(connection: Connection, task: int | str) -> Task:
    """The task of a row number, or of a public id.

    Raises:
        NotFound: there is no such task.
    """
    column = "id" if isinstance(task, int) else "task_id"
    query = text(f"select {COLUMNS} from generation_tasks where {column} = :value")
    row = connection.execute(query, {"value": task}).one_or_none()
    if row is None:
        raise NotFound(f"There is no avatar task {task!r}.")
    return task_of(row)


def page(connection: Connection, *, status: TaskStatus | None, before: int | None, limit: int) -> list[Task]:
    """Tasks, newest first; `before` is the row number of the last one of the previous page."""
    values = {"status": status.value if status else None, "before": before, "limit": limit}
    return [task_of(row) for row in connection.execute(_PAGE, values)]


def numbers(connection: Connection, task_ids: Sequence[str]) -> list[int]:
    """The row numbers of tasks; those that do not exist are left out."""
    query = text("select id from generation_tasks where task_id = any(:ids) order by id")
    return list(connection.scalars(query, {"ids": list(task_ids)}))


def progress(connection: Connection, tasks: Sequence[int]) -> dict[int, Row[Any]]:
    """People by state, `percent` of the steps and `cost_usd` by the ledger of some tasks, by row number."""
    return {row.id: row for row in connection.execute(_PROGRESS, {"ids": list(tasks)})}


def unwritten(connection: Connection, *, limit: int = 50) -> list[Task]:
    """Completed tasks whose manifest is not in the bucket yet."""
    return [task_of(row) for row in connection.execute(_UNWRITTEN, {"limit": limit})]


def daily(connection: Connection, days: int = 30) -> list[Day]:
    """Those of the last `days` days, today included, on which something happened; the latest first."""
    return [Day(*row) for row in connection.execute(_DAILY, {"days": days})]


# --- people ----------------------------------------------------------------------------------------------------------


def persona(connection: Connection, number: int) -> Persona:
    """The person of a row number.

    Raises:
        NotFound: there is no such person.
    """
    row = connection.execute(text(f"{_PEOPLE} where r.id = :id"), {"id": number}).one_or_none()
    if row is None:
        raise NotFound(f"There is no person {number}.")
    return Persona(**row._asdict())


def people_of(connection: Connection, task: int) -> list[Persona]:
    """Everybody of a task who is not deleted, in order."""
    query = text(f"{_PEOPLE} where r.task_id = :id and {IS_THERE} order by r.position")
    found = connection.execute(query, {"id": task})
    return [Persona(**row._asdict()) for row in found]


def failure_codes(connection: Connection, task: int) -> dict[int, str | None]:
    """The error codes with which a task's people were given up, by person."""
    return {row.item_id: row.error_code for row in connection.execute(_CODES, {"id": task})}


def first_pictured(connection: Connection, task_ids: Sequence[str]) -> dict[str, int]:
    """Of each task, by its public id, the first persona who has a picture; tasks without one are left out."""
    query = text(f"""
        select distinct on (t.task_id) t.task_id, r.id from generation_tasks t
        join generation_results r on r.task_id = t.id
        where t.task_id = any(:tasks) and r.status = 'completed' and {IS_THERE} order by t.task_id, r.id
    """)
    return {str(row.task_id): row.id for row in connection.execute(query, {"tasks": [str(one) for one in task_ids]})}


# --- the data stage --------------------------------------------------------------------------------------------------


def open_questions(connection: Connection, task: int) -> list[Question]:
    """Planned questions without an answer."""
    return [
        Question(row.number, row.round, tuple(row.positions), row.question)
        for row in connection.execute(_OPEN, {"id": task})
    ]


def planned(connection: Connection, task: int) -> tuple[int, int]:
    """The number of the task's next round of questions and of its next question, both from 0."""
    row = connection.execute(_PLANNED, {"id": task}).one()
    return row.round, row.number


def plan(connection: Connection, task: int, questions: Sequence[Question]) -> None:
    """Keep questions before they are asked, so that a worker that takes over asks the same ones."""
    for one in questions:
        values = {"task": task, "number": one.number, "round": one.round, "positions": list(one.positions)}
        connection.execute(_PLAN, {**values, "question": json.dumps(one.asked)})


def answered(
    connection: Connection, task: int, question: Question, people: dict[int, PersonaData], problem: str
) -> int:
    """Keep an answer: the people by position, except those whose name the task has already. Returns how many."""
    new = 0
    for position, person in people.items():
        key = name_key(person.firstname, person.lastname)
        values = {"task": task, "position": position, "key": key, **person.model_dump()}
        new += connection.execute(_ADD, values).rowcount
    values = {"task": task, "number": question.number, "problem": problem or None}
    connection.execute(_ANSWERED, values)
    return new


def missing_positions(connection: Connection, task: int) -> list[int]:
    """Positions of the task that nobody holds."""
    return list(connection.scalars(_MISSING, {"id": task}))


def known_people(connection: Connection, task: int) -> list[tuple[str, str]]:
    """(full name, bio) of everybody invented so far, in order."""
    return [(row.name, row.bio) for row in connection.execute(_KNOWN, {"id": task})]


def last_problem(connection: Connection, task: int) -> str:
    """What was wrong with the latest answer that had something wrong."""
    return connection.scalar(_PROBLEM, {"id": task}) or "Flowise did not invent enough different people"


# --- the image stage -------------------------------------------------------------------------------------------------


def commit(connection: Connection, persona: int, *, step: int, **values: Any) -> None:
    """Set the last finished `step`; a smaller one means that later steps are done again.

    Args:
        values: other columns to set, by name; `images` and `quality` are merged into the stored objects.
    """
    for name in ("split", "images", "quality"):
        if values.get(name) is not None:
            values[name] = json.dumps(values[name])
    casts = {
        "split": "cast(:split as jsonb)",
        "images": "images || cast(:images as jsonb)",
        "quality": "quality || cast(:quality as jsonb)",
    }
    sets = "".join(f", {name} = {casts.get(name, f':{name}')}" for name in values)
    statement = f"update generation_results set step = :step, error = null{sets} where id = :id"
    connection.execute(text(statement), {"id": persona, "step": step, **values})


def complete(connection: Connection, persona: int, urls: Sequence[str]) -> None:
    """The last step: set the URLs and complete the person."""
    values: dict[str, Any] = {"id": persona, "base": urls[0]} | {f"url_{i}": url for i, url in enumerate(urls[1:], 1)}
    connection.execute(_COMPLETE, values)


# --- the statements --------------------------------------------------------------------------------------------------

_PAGE = text(f"""
    select {COLUMNS} from generation_tasks
    where (cast(:status as text) is null or status = :status) and (cast(:before as bigint) is null or id < :before)
    and not exists (select from deletions d where d.kind = 'avatars' and d.item = generation_tasks.id)
    order by id desc limit :limit
""")

_PROGRESS = text(f"""
    select t.id, t.persona_count as total, count(r.firstname) as invented,
        count(*) filter (where r.status = 'completed') as completed,
        count(*) filter (where r.status = 'failed') as failed,
        count(*) filter (where r.status = 'cancelled') as cancelled,
        count(*) filter (where r.status = 'pending') as pending,
        case when t.finished_at is not null then 100  -- although its failed people have not finished all steps
            else round(100.0 * coalesce(sum(r.step), 0) / ({len(Step)} * t.persona_count), 1) end as percent,
        coalesce((select sum(cost_usd) from spending_tenants where tenant = 'task_' || t.id), 0) as cost_usd
    from generation_tasks t left join generation_results r on r.task_id = t.id
    where t.id = any(:ids) group by t.id
""")

_UNWRITTEN = text(f"""
    select {COLUMNS} from generation_tasks where status = 'completed' and manifest_url is null
    and exists (select from generation_results r where r.task_id = generation_tasks.id and {IS_THERE})
    order by finished_at limit :limit
""")

_DAILY = text("""
    with since as (
        select date_trunc('day', now(), 'UTC') - make_interval(hours => 24 * (:days - 1)) as first
    ), people as (
        select (finished_at at time zone 'UTC')::date as day, count(*) filter (where status = 'completed') as completed,
            count(*) filter (where status = 'failed') as failed
        from generation_results, since where finished_at >= first group by 1
    ), spent as (
        select day, cast(sum(bought) as bigint) as calls, sum(cost_usd) as cost, sum(standin) > 0 as standin
        from spending_days, since
        where pipeline = 'avatars' and bought > 0 and day >= (first at time zone 'UTC')::date group by 1
    )
    select coalesce(p.day, s.day), coalesce(p.completed, 0), coalesce(p.failed, 0), coalesce(s.calls, 0),
        coalesce(s.cost, 0), coalesce(s.standin, false)
    from people p full join spent s on s.day = p.day order by 1 desc
""")

_CODES = text("""
    select w.item_id, w.error_code from generation_results r
    join work_items w on w.queue = 'avatar_images' and w.item_id = r.id where r.task_id = :id and r.status = 'failed'
""")

_OPEN = text("""
    select number, round, positions, question from generation_batches
    where task_id = :id and answered_at is null order by number
""")

_PLANNED = text("""
    select coalesce(max(round) + 1, 0) as round, coalesce(max(number) + 1, 0) as number
    from generation_batches where task_id = :id
""")

_PLAN = text("""
    insert into generation_batches (task_id, number, round, positions, question)
    values (:task, :number, :round, :positions, cast(:question as jsonb)) on conflict do nothing
""")

_ADD = text("""
    insert into generation_results (task_id, position, firstname, lastname, name_key, gender, age, nationality,
        occupation, bio, appearance)
    values (:task, :position, :firstname, :lastname, :key, :gender, :age, :nationality, :occupation, :bio, :appearance)
    on conflict do nothing
""")

_ANSWERED = text("""
    update generation_batches set answered_at = now(), problem = :problem
    where task_id = :task and number = :number
""")

_MISSING = text("""
    select p from generation_tasks t cross join generate_series(0, t.persona_count - 1) p
    where t.id = :id and not exists (select from generation_results r where r.task_id = t.id and r.position = p)
    order by p
""")

_KNOWN = text("""
    select firstname || ' ' || lastname as name, bio from generation_results
    where task_id = :id and firstname is not null order by position
""")

_PROBLEM = text("""
    select problem from generation_batches where task_id = :id and problem is not null order by number desc limit 1
""")

_COMPLETE = text(f"""
    update generation_results set status = 'completed', step = {Step.URLS.value}, error = null, finished_at = now(),
        base_image_url = :base, image_1_url = :url_1, image_2_url = :url_2, image_3_url = :url_3, image_4_url = :url_4
    where id = :id
""")
