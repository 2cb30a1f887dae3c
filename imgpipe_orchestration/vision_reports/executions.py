"""The rows of `vision_executions`: one list of the external API, and the outcome of each analysis in it.

An execution is an item of QUEUE until its list was fetched. After that, the transaction that ends its last analysis
also sets its totals and status (`settle`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from imgpipe_orchestration.errors import Gone
from imgpipe_orchestration.storage.claims import Claim, Claims, Item, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.secrets import Vault
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.vision_reports import cron_jobs
from imgpipe_orchestration.vision_reports.model import ApiAccess, ExecutionTrigger

DELETED = "The cron job that found this analysis was deleted."

log = logger(__name__)


def _follow(rows: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
    """Copy the state of items in QUEUE to their executions. The log sums up those without a list, as `settle` does the
    others."""
    if state not in {State.FAILED, State.WAITING}:
        return
    rows.execute(
        text("""
            update vision_executions set status = case when :failed then 'failed' else 'running' end, error = :error,
                finished_at = case when :failed then now() end
            where id = any(:ids)
        """),
        {"failed": state is State.FAILED, "error": error, "ids": list(ids)},
    )
    if state is State.FAILED:
        for execution in ids:
            log.info(f"Execution {execution}: failed", extra={"total": 0, "successful": 0, "failed": 0, "error": error})


QUEUE = Queue("vision_executions", max_attempts=4, mirror=_follow)


def start(
    rows: Connection,
    claims: Claims,
    trigger: ExecutionTrigger,
    *,
    cron_job_id: int | None = None,
    connection: str | None = None,
    tenant: str = "",
) -> Row[Any]:
    """A new execution, queued for listing: of a cron job, or (from the command line) with a connection of its own, as
    `sealed` returns it."""
    row = rows.execute(
        text("""
            insert into vision_executions (cron_job_id, connection, trigger)
            values (:job, :connection, :trigger) returning *
        """),
        {"job": cron_job_id, "connection": connection, "trigger": trigger.value},
    ).one()
    if cron_job_id is not None:
        rows.execute(text("update cron_jobs set last_run_at = now() where id = :job"), {"job": cron_job_id})
    claims.enqueue(rows, QUEUE, [Item(row.id, tenant=tenant)])
    return row


def withdraw(rows: Connection, claims: Claims, number: int, reason: str) -> None:
    """End an execution whose list nobody has begun to read, or is still to read."""
    QUEUE.mirror(rows, claims.withdraw(rows, QUEUE, [number], reason), State.FAILED, reason)


def start_due(engine: Engine, claims: Claims) -> int:
    """Start an execution for each due cron job. Returns how many."""
    with transaction(engine) as rows:
        due = cron_jobs.take_due(rows)
        for job in due:
            start(rows, claims, ExecutionTrigger.SCHEDULED, cron_job_id=job.id, tenant=job.organization_id)
    return len(due)


def of_backfill(rows: Connection, cron_job_id: int | None, connection: str | None, reference: str) -> Row[Any] | None:
    """A backfill's execution; None when `reference` has one already, which an earlier try of the run has made."""
    values = {"job": cron_job_id, "connection": connection, "reference": reference}
    return rows.execute(
        text("""
            insert into vision_executions (cron_job_id, connection, trigger, reference, listed_at)
            values (:job, :connection, 'backfill', :reference, now())
            on conflict (reference) do nothing returning *
        """),
        values,
    ).one_or_none()


def sealed(connection: ApiAccess, vault: Vault) -> str:
    """A connection, encrypted, as an execution stores it; `connection_of` decrypts it."""
    return vault.lock(json.dumps(asdict(connection)))


def connection_of(rows: Connection, execution_id: int | None, vault: Vault) -> ApiAccess:
    """An execution's connection: its own, or by its cron job's present settings.

    Raises:
        Gone: the cron job was deleted.
        SettingsError: its key cannot be decrypted.
    """
    row = rows.execute(
        text("""
            select e.connection, j.* from vision_executions e left join cron_jobs j on j.id = e.cron_job_id
            where e.id = :id
        """),
        {"id": execution_id},
    ).one_or_none()
    if row is not None and row.connection is not None:
        return ApiAccess(**json.loads(vault.unlock(row.connection)))
    if row is None or row.job_id is None:
        raise Gone(DELETED)
    return ApiAccess(
        get_url=row.external_api_get_url,
        post_url=row.external_api_post_url,
        key=vault.unlock(row.external_api_key),
        backend_url=row.backend_api_url,
        organization_id=row.organization_id,
        urgent=row.urgent,
    )


def note_run(engine: Engine, claims: Sequence[Claim]) -> None:
    """Link executions to the Dagster run that has claimed them or their analyses."""
    if not claims:
        return
    ids = [claim.item_id for claim in claims]
    with transaction(engine) as rows:
        if claims[0].queue != QUEUE.name:
            theirs = "select distinct execution_id from vision_analyses where id = any(:ids)"
            ids = [number for number in rows.scalars(text(theirs), {"ids": ids}) if number is not None]
        # Locked in the order of `settle`.
        locked = "select from vision_executions where id = any(:ids) order by id for no key update"
        rows.execute(text(locked), {"ids": ids})
        noted = "update vision_executions set run_id = :run where id = any(:ids)"
        rows.execute(text(noted), {"run": claims[0].owner, "ids": ids})


def settle(rows: Connection, ids: Sequence[int]) -> None:
    """Count the outcomes of executions, and end those without open ones. Unusable entries of a list count as failed.

    The lock is taken first, in a statement of its own, so that of two transactions that settle the last two analyses
    the second sees what the first has written. It is `no key`, because both may hold a key share lock already (from
    the check of the foreign key in an analysis's row) and would otherwise wait for each other.
    """
    wanted = {"ids": sorted(ids)}
    locked = "select id, finished_at from vision_executions where id = any(:ids) order by id for no key update"
    going_on = {row.id for row in rows.execute(text(locked), wanted) if row.finished_at is None}
    settled = rows.execute(
        text("""
            update vision_executions e set total = c.total + e.unusable, successful = c.successful,
                failed = c.failed + e.unusable,
                status = case when e.listed_at is null or c.open > 0 then 'running'
                    when c.failed + e.unusable = 0 then 'success' when c.successful = 0 then 'failed'
                    else 'partial' end,
                finished_at = case when e.listed_at is not null and c.open = 0 then now() end
            from (
                select x.id, count(o.analysis_id) as total,
                    count(*) filter (where o.status = 'success') as successful,
                    count(*) filter (where o.status = 'failed') as failed,
                    count(*) filter (where o.status = 'running') as open
                from unnest(cast(:ids as bigint[])) as x (id)
                left join vision_outcomes o on o.execution_id = x.id group by x.id
            ) c where e.id = c.id
            returning e.id, e.status, e.total, e.successful, e.failed, e.finished_at
        """),
        wanted,
    )
    for row in settled:
        if row.finished_at and row.id in going_on:
            log.info(
                f"Execution {row.id}: {row.status}",
                extra={"total": row.total, "successful": row.successful, "failed": row.failed},
            )


def recent(
    engine: Engine, number: int, *, limit: int = 1, by: Literal["cron_job_id", "id"] = "cron_job_id"
) -> list[Mapping[str, Any]]:
    """The newest executions of a job, or one `by` its id, with their analyses."""
    with transaction(engine) as rows:
        found = rows.execute(
            text(f"""
                select * from vision_executions where {by} = :number order by started_at desc, id desc limit :limit
            """),
            {"number": number, "limit": limit},
        ).all()
        outcomes: dict[int, list[Mapping[str, Any]]] = {row.id: [] for row in found}
        for row in rows.execute(
            text("""
                select o.*, a.vision_analysis_id, a.run_code
                from vision_outcomes o join vision_analyses a on a.id = o.analysis_id
                where o.execution_id = any(:ids) order by o.execution_id, o.analysis_id
            """),
            {"ids": list(outcomes)},
        ):
            outcomes[row.execution_id].append(row._asdict())
    return [{**row._mapping, "analyses": outcomes[row.id]} for row in found]


def newest(engine: Engine) -> dict[UUID, Row[Any]]:
    """`started_at`, `status` and `error` of each job's newest execution, by the job's UUID."""
    with transaction(engine) as rows:
        found = rows.execute(
            text("""
                select j.job_id, e.* from cron_jobs j cross join lateral (
                    select started_at, status, error from vision_executions
                    where cron_job_id = j.id order by started_at desc limit 1
                ) e
            """)
        ).all()
    return {row.job_id: row for row in found}
