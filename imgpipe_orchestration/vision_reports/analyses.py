"""The rows of `vision_analyses`: what the external API listed, and how far each has come.

An analysis is identified by (external API, organization, vision_analysis_id). When it is listed again while it is
unfinished or after it was delivered, it is left alone; after it failed, it gets fresh attempts in the new execution.

Its `status` is waiting (nothing submitted), submitted (`batch_id` is the backend's batch), delivered, or failed.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import Gone, SettingsError
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.storage.claims import Claims, Item, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.secrets import Vault
from imgpipe_orchestration.vision_reports import batches, cron_jobs, executions
from imgpipe_orchestration.vision_reports.model import Analysis, Document
from imgpipe_orchestration.web.texts import plain_text

_OUTCOMES = {State.DONE: "success", State.FAILED: "failed", State.WAITING: "running"}


def _follow(rows: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """Copy the state of items in QUEUE to the analyses, their outcomes and the executions' totals."""
    values = {"ids": list(ids), "error": error, "outcome": _OUTCOMES[state], "ended": state is not State.WAITING}
    status = {State.DONE: "'delivered'", State.FAILED: "'failed'"}.get(
        state, "case when batch_id is null then 'waiting' else 'submitted' end"
    )
    rows.execute(text(f"update vision_analyses set status = {status}, error = :error where id = any(:ids)"), values)
    touched = rows.execute(
        text("""
            update vision_outcomes o set status = :outcome, error = :error,
                batch_id = coalesce(a.batch_id, o.batch_id), finished_at = case when :ended then now() end
            from vision_analyses a
            where a.id = any(:ids) and o.analysis_id = a.id and o.execution_id = a.execution_id
            returning o.execution_id
        """),
        values,
    ).scalars()
    executions.settle(rows, sorted(set(touched)))


QUEUE = Queue("vision_analyses", max_attempts=4, mirror=_follow)


def source_of(get_url: str) -> str:
    """The external API's identity: its URL without user, query (which may hold keys) and trailing slash."""
    parts = urlsplit(get_url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}{parts.path.rstrip('/')}"


def register(
    rows: Connection,
    claims: Claims,
    execution_id: int,
    source: str,
    organization_id: str,
    listed: Sequence[Mapping[str, Any]],
) -> int:
    """Queue listed analyses for an execution, without those that are unfinished or delivered already; returns how
    many.

    Args:
        listed: values of the columns, `documents` encrypted.
    """
    whose = {"source": source, "organization_id": organization_id, "execution_id": execution_id}
    names = [found["vision_analysis_id"] for found in listed]
    # Before the analyses, as whoever requeues them.
    rows.execute(_ITEMS_LISTED, {**whose, "names": names, "queue": QUEUE.name})
    ids = [number for found in listed for number in rows.scalars(_REGISTER, {**whose, **found})]
    rows.execute(_GOES_ON, {"ids": ids})
    claims.enqueue(rows, QUEUE, [Item(analysis, tenant=organization_id) for analysis in ids], again=True)
    return len(ids)


def delete_job(engine: Engine, claims: Claims, job_id: UUID) -> None:
    """Remove a cron job, its key and its executions. Its unfinished analyses are withdrawn, also from workers, whose
    next write raises LeaseLost, and so are their batches at our own backend. Another job that lists the same analysis
    takes it up.

    Raises:
        NotFound: there is none of this id.
    """
    with transaction(engine) as rows:
        row = cron_jobs.find(rows, job_id, lock=True)
        audit.note(before=cron_jobs.told({name: getattr(row, name) for name in cron_jobs.COLUMNS}))
        job = {"id": row.id}
        # Items are locked before rows, as workers do, who write the row while they hold the lock on its item.
        unlisted = rows.scalars(_UNLISTED, job).all()
        claims.withdraw(rows, executions.QUEUE, unlisted, executions.DELETED)
        ended = claims.withdraw(rows, QUEUE, rows.scalars(_UNDER_WAY, job).all(), executions.DELETED)
        rows.execute(_ENDED, {"ids": ended, "error": executions.DELETED})
        orphans = claims.withdraw(rows, batches.QUEUE, rows.scalars(_BATCHES, {"ids": ended}).all(), executions.DELETED)
        batches.QUEUE.mirror(rows, orphans, State.FAILED, executions.DELETED)
        rows.execute(_BATCHLESS, {"ids": ended, "batches": orphans})
        rows.execute(text("delete from cron_jobs where id = :id"), job)


def load(rows: Connection, analysis_id: int, vault: Vault) -> Analysis:
    """An analysis with the connection to its external API.

    Raises:
        Gone: its cron job was deleted, or pointed elsewhere; or its documents cannot be read.
        SettingsError: the connection's key cannot be decrypted.
    """
    values = rows.execute(_LOAD, {"id": analysis_id}).one()._asdict()
    connection = executions.connection_of(rows, values["execution_id"], vault)
    try:
        listed = json.loads(vault.unlock(values.pop("documents")))
    except SettingsError:  # for good: the connection can be read, so its key was stored again
        if values["batch_id"] is None:
            raise Gone("Stored under another SECRET_KEY. If it is listed again, it is stored again.") from None
        listed = []  # the backend has its images
    documents = tuple(Document(one["name"], one["url"], one["kind"]) for one in listed)
    moved = values.pop("source") != source_of(connection.get_url) and not values["redelivery"]
    if moved or values["organization_id"].casefold() != connection.organization_id.casefold():
        # Its new list does not have this analysis, or has it as another one, which would be delivered as well.
        raise Gone("Its cron job was pointed at another external API or organization since this was found.")
    return Analysis(**values, documents=documents, connection=connection)


def names(engine: Engine, ids: Collection[int]) -> dict[int, str]:
    """The names of analyses for people, by their numbers, in order."""
    query = text("select id, run_code, vision_analysis_id from vision_analyses where id = any(:ids) order by id")
    with transaction(engine) as rows:
        found = rows.execute(query, {"ids": list(ids)}).all()
    return {row.id: row.run_code or plain_text(row.vision_analysis_id, 200) for row in found}


def note_images(rows: Connection, analysis_id: int, *, total: int, usable: int) -> None:
    """Record how many images the analysis names and how many of them were fetched, for its present execution."""
    _record(rows, analysis_id, {"images_total": total, "images_usable": usable})


def submitted(rows: Connection, analysis_id: int, batch_id: str) -> None:
    """Record that a backend accepted the batch. From here on every worker only waits for it."""
    _record(rows, analysis_id, {"batch_id": batch_id}, ", status = 'submitted', submitted_at = now()")


def _record(rows: Connection, analysis_id: int, values: Mapping[str, Any], more: str = "") -> None:
    """Set columns of an analysis and of its outcome in the present execution; `more` are further ones of its own."""
    sets = ", ".join(f"{name} = :{name}" for name in values)
    statement = f"""
        with a as (update vision_analyses set {sets}{more} where id = :id returning id, execution_id)
        update vision_outcomes o set {sets} from a where o.analysis_id = a.id and o.execution_id = a.execution_id
    """
    rows.execute(text(statement), {**values, "id": analysis_id})


def _setting(changes: str) -> Callable[[Connection, int], None]:
    """A function that changes the row of an analysis, by its id."""
    statement = text(f"update vision_analyses set {changes} where id = :id")

    def change(rows: Connection, analysis_id: int) -> None:
        rows.execute(statement, {"id": analysis_id})

    return change


forget_batch = _setting("batch_id = null, submitted_at = null, reference = gen_random_uuid()")
"""The backend will never complete this batch: the next try submits another one, under a new reference."""
uploading = _setting("upload_started_at = now()")
"""Record that an upload begins. Before another one, the external API is asked whether this one has arrived."""
not_uploaded = _setting("upload_started_at = null")
"""Record that the upload has certainly not arrived."""
delivered = _setting("delivered_at = now()")
"""Record that the report has arrived."""


def reopen_day(engine: Engine, claims: Claims, day: date, reference: str) -> list[int]:
    """Start all analyses of a day from the beginning, as executions of a backfill; unfinished ones are left alone.

    Args:
        reference: the id of the first run, so that its re-execution does not start them once more.

    Returns:
        their ids.
    """
    reopened: list[int] = []
    with transaction(engine) as rows:
        rows.execute(_ITEMS_OF_DAY, {"day": day, "queue": QUEUE.name})  # before the analyses, as whoever requeues them
        groups: dict[tuple[int | None, str | None], list[Row[Any]]] = {}
        for row in rows.execute(_OF_DAY, {"day": day, "queue": QUEUE.name}):
            groups.setdefault((row.cron_job_id, row.connection), []).append(row)
        for (job, connection), members in groups.items():
            # The encrypted connection of a command is different for each execution.
            whose = f"job {job}" if connection is None else hashlib.sha256(connection.encode()).hexdigest()
            execution = executions.of_backfill(rows, job, connection, f"{reference}/{day}/{whose}")
            if execution is None:
                continue
            for row in members:
                rows.execute(_REOPEN, {"id": row.id, "execution": execution.id})
                claims.enqueue(rows, QUEUE, [Item(row.id, tenant=row.organization_id)], again=True)
            executions.settle(rows, [execution.id])
            reopened += [row.id for row in members]
    return reopened


_LOAD = text("""
    select id, vision_analysis_id, organization_id, execution_id, user_query, documents, source, batch_id,
        cast(reference as text) as reference, upload_started_at, redelivery,
        cast(extract(epoch from now() - submitted_at) as double precision) as waited
    from vision_analyses where id = :id
""")

_REGISTER = text("""
    insert into vision_analyses as a (source, organization_id, vision_analysis_id, execution_id, run_code, user_query,
        created_day, documents)
    values (:source, :organization_id, :vision_analysis_id, :execution_id, :run_code, :user_query, :created_day,
        :documents)
    on conflict (source, lower(organization_id), lower(vision_analysis_id)) do update set
        execution_id = excluded.execution_id, run_code = excluded.run_code, user_query = excluded.user_query,
        documents = excluded.documents, error = null, upload_started_at = null, redelivery = false,
        submitted_at = case when a.batch_id is not null then now() end, -- its time limit begins again
        status = case when a.batch_id is null then 'waiting' else 'submitted' end
    where a.status = 'failed'
    returning a.id
""")

_ITEMS_LISTED = text("""
    select 1 from work_items where queue = :queue and item_id in (
        select id from vision_analyses where source = :source and lower(organization_id) = lower(:organization_id)
            and lower(vision_analysis_id) in (select lower(name) from unnest(cast(:names as text[])) as name)
    ) order by item_id for update
""")

# The images of an accepted batch are not fetched again, so their numbers are copied.
_GOES_ON = text("""
    insert into vision_outcomes (execution_id, analysis_id, batch_id, images_total, images_usable)
    select execution_id, id, batch_id, case when batch_id is not null then images_total end,
        case when batch_id is not null then images_usable end
    from vision_analyses where id = any(:ids)
""")

_UNLISTED = text("select id from vision_executions where cron_job_id = :id and listed_at is null")

_UNDER_WAY = text("""
    select a.id from vision_analyses a join vision_executions e on e.id = a.execution_id
    where e.cron_job_id = :id and a.status in ('waiting', 'submitted')
""")

_ENDED = text("update vision_analyses set status = 'failed', error = :error where id = any(:ids)")

_BATCHES = text("""
    select b.id from vision_batches b join vision_analyses a on a.batch_id = cast(b.batch_id as text)
    where a.id = any(:ids)
""")

_BATCHLESS = text("""
    update vision_analyses a set batch_id = null, submitted_at = null, reference = gen_random_uuid()
    from vision_batches b where a.id = any(:ids) and b.id = any(:batches) and a.batch_id = cast(b.batch_id as text)
""")

_ITEMS_OF_DAY = text("""
    select 1 from work_items where queue = :queue and item_id in (
        select id from vision_analyses where created_day = :day) order by item_id for update
""")

_OF_DAY = text("""
    select a.id, a.organization_id, e.cron_job_id, e.connection
    from vision_analyses a join vision_executions e on e.id = a.execution_id
    where a.created_day = :day and not exists (
        select from work_items w where w.queue = :queue and w.item_id = a.id and w.state in ('waiting', 'claimed'))
    order by a.id for update of a
""")

_REOPEN = text("""
    with a as (
        update vision_analyses set execution_id = :execution, status = 'waiting', batch_id = null, submitted_at = null,
            upload_started_at = null, error = null, reference = gen_random_uuid(),
            redelivery = (delivered_at is not null)
        where id = :id returning id
    )
    insert into vision_outcomes (execution_id, analysis_id) select :execution, id from a
""")
