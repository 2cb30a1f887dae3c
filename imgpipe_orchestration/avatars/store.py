"""The queues of tasks and people, and all changes of a task's state.

Locks are always taken work items first, then the task, so that cancelling and finishing can't deadlock.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from imgpipe_orchestration.avatars import records
from imgpipe_orchestration.avatars.model import ENDED, TaskRequest, TaskStatus
from imgpipe_orchestration.avatars.records import COLUMNS, ENDED_SQL, Task, task_of
from imgpipe_orchestration.errors import Conflict
from imgpipe_orchestration.storage.claims import Claims, Item, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services

# --- queues ----------------------------------------------------------------------------------------------------------


def _follow_data(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """The task follows its data item."""
    for task in ids:
        if state is State.FAILED:
            close_data(connection, task, error or "not invented")
        elif state is State.WAITING and error is None:
            _reopen_data(connection, task)
    if state is State.WAITING and error is not None:
        _put_back(connection, ids, TaskStatus.GENERATING_DATA, TaskStatus.PENDING, error)


def _follow_images(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """The person, and with the last one the task, follows the image item."""
    values = {"ids": list(ids), "error": error}
    if state is State.FAILED:
        for task in sorted(set(connection.scalars(_FAIL_PERSONAS, values))):
            settle(connection, task)
    elif state is State.WAITING and error is None:
        tasks = list(connection.scalars(_RESTART_PERSONAS, values))
        connection.execute(_REOPEN, {"ids": tasks, "status": TaskStatus.DATA_GENERATED.value})
    elif state is State.WAITING:
        tasks = list(connection.scalars(_NOTE_PERSONAS, values))
        _put_back(connection, tasks, TaskStatus.GENERATING_IMAGES, TaskStatus.DATA_GENERATED, error or "")


AWAY_ATTEMPTS = 12
"""For a provider that is away: about 40 minutes. Other calls may have been charged, so they have three attempts."""

DATA = Queue("avatar_data", max_attempts=3, mirror=_follow_data, away_attempts=AWAY_ATTEMPTS)
"""Tasks whose people are to be invented; item ids are `generation_tasks.id`."""

IMAGES = Queue("avatar_images", max_attempts=3, mirror=_follow_images, away_attempts=AWAY_ATTEMPTS)
"""People who are to be pictured; item ids are `generation_results.id`, a tenant is a task."""


# --- asking ----------------------------------------------------------------------------------------------------------


def create(connection: Connection, claims: Claims, wanted: TaskRequest) -> Task:
    """Accept a request: the task and its work item, in the caller's transaction."""
    task = task_of(connection.execute(_CREATE, wanted.model_dump()).one())
    claims.enqueue(connection, DATA, [Item(task.id)])
    return task


# --- working ---------------------------------------------------------------------------------------------------------


def due(services: Services, queue: Queue) -> bool:
    """Whether a run would find something to do; an index look-up."""
    if services.claims.due_partitions(queue, limit=1):
        return True
    if queue is DATA:
        return False
    with transaction(services.engine) as connection:
        return bool(records.unwritten(connection, limit=1))


def begin(connection: Connection, queue: Queue, item: int) -> None:
    """Work on an item begins: set its task's state, and clear the reason why it waited."""
    connection.execute(_BEGIN_DATA if queue is DATA else _BEGIN_IMAGES, {"id": item})


def close_data(connection: Connection, task: int, error: str) -> None:
    """End the data stage: missing people fail with `error`, the others are put into the image queue."""
    connection.execute(_LOCK, {"id": task})
    connection.execute(_FAIL_MISSING, {"id": task, "error": error})
    waiting = list(connection.scalars(_TO_PICTURE, {"id": task}))
    Claims.enqueue(connection, IMAGES, [Item(person, tenant=f"task_{task}") for person in waiting])
    connection.execute(_DATA_GENERATED, {"id": task})
    settle(connection, task)


def settle(connection: Connection, task: int) -> None:
    """End the task if all its people have ended; its error log names those who failed."""
    connection.execute(_LOCK, {"id": task})
    left = connection.execute(_LEFT, {"id": task}).one()
    if left.pending or left.inventing:
        return
    # The documents' rule: partial success is completion with an error log.
    status = TaskStatus.FAILED if left.failed and not left.completed else TaskStatus.COMPLETED
    connection.execute(_END, {"id": task, "status": status.value})


def forget(connection: Connection, tasks: Sequence[int]) -> None:
    """Leave people who are being purged out of what completed tasks say: the error log and the manifest."""
    connection.execute(_FORGET, {"ids": list(tasks)})


def cancel(connection: Connection, claims: Claims, task: Task) -> None:
    """Cancel a task: nothing more is begun, and unfinished pictures are dropped when they are ready.

    Raises:
        Conflict: it has ended already.
    """
    reason = "the task was cancelled"
    claims.withdraw(connection, DATA, [task.id], reason)
    people = list(connection.scalars(_TO_PICTURE, {"id": task.id}))
    claims.withdraw(connection, IMAGES, people, reason)
    if not end_cancelled(connection, [task.id]):
        state = records.get(connection, task.id).status
        raise Conflict(f"The task is {state}; only one that has not ended can be cancelled.")


def end_cancelled(connection: Connection, tasks: Sequence[int]) -> bool:
    """End tasks that are at work, with their people; False where none was."""
    ended = connection.scalars(_CANCEL, {"ids": list(tasks)}).all()
    # A statement of its own, which sees who was put back while the first one waited for a task's lock.
    connection.execute(_CANCEL_PEOPLE, {"ids": ended})
    return bool(ended)


def retry_failed(connection: Connection, claims: Claims, task: Task) -> int:
    """Try everybody again who failed; returns how many.

    Raises:
        Conflict: nobody failed, or the task was cancelled.
    """
    if task.status is TaskStatus.CANCELLED:
        raise Conflict("The task was cancelled, so nobody in it is tried again. Ask for a new one.")
    if task.status not in ENDED:
        raise Conflict(f"The task is {task.status}; failed people can be tried again once it has ended.")
    connection.execute(_LOCK_ITEMS, {"id": task.id})
    connection.execute(_LOCK, {"id": task.id})
    missing = _reopen_data(connection, task.id)
    people = list(connection.scalars(_FAILED_PEOPLE, {"id": task.id}))
    if not missing and not people:
        raise Conflict("Nobody in this task has failed, or the failed people were deleted, a week after it ended.")
    if missing:
        claims.enqueue(connection, DATA, [Item(task.id)], again=True)
    if people:
        _follow_images(connection, people, State.WAITING, None)
        claims.enqueue(connection, IMAGES, [Item(person, tenant=f"task_{task.id}") for person in people], again=True)
    return missing + len(people)


def _reopen_data(connection: Connection, task: int) -> int:
    """Delete the rows of people who could not be invented, so that they are asked for again; returns how many."""
    missing = connection.execute(_FORGET_MISSING, {"id": task}).rowcount
    if missing:
        connection.execute(_REOPEN, {"ids": [task], "status": TaskStatus.PENDING.value})
    return missing


def _put_back(connection: Connection, ids: Sequence[int], now: TaskStatus, back: TaskStatus, reason: str) -> None:
    values = {"ids": sorted(set(ids)), "now": now.value, "back": back.value, "reason": reason}
    connection.execute(_PUT_BACK, values)


# --- the statements --------------------------------------------------------------------------------------------------

_CREATE = text(f"""
    insert into generation_tasks (persona_count, brief, language, style, seed, urgent)
    values (:count, :brief, :language, :style, :seed, :urgent) returning {COLUMNS}
""")

_BEGIN_DATA = text("""
    update generation_tasks set status = 'generating-data', waiting_for = null,
        started_at = coalesce(started_at, now())
    where id = :id and status in ('pending', 'generating-data')
""")

_BEGIN_IMAGES = text("""
    update generation_tasks set status = 'generating-images', waiting_for = null
    where id = (select task_id from generation_results where id = :id)
        and status in ('data-generated', 'generating-images')
""")

_LOCK = text("select 1 from generation_tasks where id = :id for update")

_LOCK_ITEMS = text("""
    select 1 from work_items where (queue = :data and item_id = :id) or (queue = :images
        and item_id in (select id from generation_results where task_id = :id)) order by queue, item_id for update
""").bindparams(data=DATA.name, images=IMAGES.name)

_FAIL_MISSING = text("""
    insert into generation_results (task_id, position, status, error, finished_at)
    select t.id, p, 'failed', :error, now()
    from generation_tasks t cross join generate_series(0, t.persona_count - 1) p
    where t.id = :id and t.status in ('pending', 'generating-data')
    on conflict (task_id, position) do nothing
""")

_TO_PICTURE = text("""
    select id from generation_results where task_id = :id and status = 'pending' order by position
""")

_DATA_GENERATED = text("""
    update generation_tasks set status = 'data-generated', waiting_for = null
    where id = :id and status in ('pending', 'generating-data')
""")

_LEFT = text("""
    select t.status in ('pending', 'generating-data') as inventing,
        count(*) filter (where r.status = 'pending') as pending,
        count(*) filter (where r.status = 'completed') as completed,
        count(*) filter (where r.status = 'failed') as failed
    from generation_tasks t left join generation_results r on r.task_id = t.id where t.id = :id group by t.id
""")

_TOLD = """manifest_url = null, error_log = (
        select string_agg(format('%s (result_id=%s): %s',
            coalesce(r.firstname || ' ' || r.lastname, 'persona ' || (r.position + 1)), r.id, r.error),
            E'\\n' order by r.position)
        from generation_results r where r.task_id = t.id and r.status = 'failed'
        and not exists (select from deletions where kind = 'personas' and item = r.id))
"""

_END = text(f"""
    update generation_tasks t set status = :status, finished_at = now(), waiting_for = null, {_TOLD}
    where t.id = :id and t.status not in ({ENDED_SQL})
""")

# A failed task keeps its errors, of which retention purges the people.
_FORGET = text(f"update generation_tasks t set {_TOLD} where t.id = any(:ids) and t.status = 'completed'")

_CANCEL = text(f"""
    update generation_tasks set status = 'cancelled', finished_at = now(), waiting_for = null
    where id = any(:ids) and status not in ({ENDED_SQL}) returning id
""")

_CANCEL_PEOPLE = text("""
    update generation_results set status = 'cancelled', finished_at = now()
    where status = 'pending' and task_id = any(:ids)
""")

_FAILED_PEOPLE = text("""
    select id from generation_results r where task_id = :id and status = 'failed' and firstname is not null
        and not exists (select from deletions where kind = 'personas' and item = r.id)
    order by position for update
""")

_FORGET_MISSING = text("""
    delete from generation_results r where task_id = :id and status = 'failed' and firstname is null
        and not exists (select from deletions where kind = 'personas' and item = r.id)
        and task_id in (select id from generation_tasks where id = :id and status <> 'cancelled' for update)
""")

_REOPEN = text("""
    update generation_tasks set status = :status, error_log = null, finished_at = null, waiting_for = null,
        manifest_url = null
    where id = any(:ids) and status in ('completed', 'failed')
""")

_PUT_BACK = text(f"""
    update generation_tasks set status = case when status = :now then :back else status end, waiting_for = :reason
    where id = any(:ids) and status not in ({ENDED_SQL})
""")

_FAIL_PERSONAS = text("""
    update generation_results set status = 'failed', error = :error, finished_at = now()
    where id = any(:ids) and status = 'pending' returning task_id
""")

# A new edition makes other calls in the ledger: pictures that could not be used must not be taken from it again.
_RESTART_PERSONAS = text("""
    with going as materialized (
        select id from generation_tasks
        where id in (select task_id from generation_results where id = any(:ids)) and status <> 'cancelled'
        order by id for update)
    update generation_results set status = 'pending', error = null, finished_at = null, edition = edition + 1,
        base_tries = 1, grid_tries = 1
    where id = any(:ids) and status = 'failed' and task_id in (select id from going) returning task_id
""")

_NOTE_PERSONAS = text("""
    update generation_results set error = :error where id = any(:ids) and status = 'pending' returning task_id
""")
