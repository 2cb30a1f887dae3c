"""One execution from the command line, in this process and without Dagster.

Unfinished analyses stay in the queue: the next Dagster run goes on with them, or the next command for the same external
API and organization.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Connection, text

from imgpipe_orchestration.partners.http import at_host
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.vision_reports import analyses, executions, model, runs
from imgpipe_orchestration.vision_reports.crew import Crew
from imgpipe_orchestration.vision_reports.listing import fetch_list
from imgpipe_orchestration.vision_reports.model import ApiAccess, ExecutionStatus, ExecutionTrigger

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

_LOOK_AGAIN_SECONDS = 1.0
_NO_LIST = "The command ended before it had the list."


def run_now(services: Services, connection: ApiAccess, say: Callable[[str], None]) -> Mapping[str, Any]:
    """One execution over `connection`. Returns it as in `executions.summaries`; its status is still `running` when
    something failed that will be tried again later.

    Args:
        say: is called with each line for the user.
    """
    owner = f"command-{uuid4()}"
    claims = services.claims
    say(f"{at_host('The Vision Analysis API', connection.get_url)}, organization {connection.organization_id}")
    _take_over_from_dead(services, connection, say)
    with transaction(services.engine) as rows:
        execution = executions.start(
            rows,
            claims,
            ExecutionTrigger.COMMAND,
            connection=executions.sealed(connection, services.vault),
            tenant=connection.organization_id,
        )
    try:
        with claims.hold(owner):
            if _list(services, owner, execution.id):
                _adopt(services, connection, execution.id, say)
                _work(services, owner, execution.id, say)
        return _others_finished(services, execution.id)
    finally:
        unlisted = [claim.item_id for claim in claims.owned(executions.QUEUE, owner)]
        with transaction(services.engine) as rows:
            _end(rows, services, unlisted, _NO_LIST)
        claims.release(owner)


def _list(services: Services, owner: str, execution_id: int) -> bool:
    """List the execution's analyses; False when that failed. The execution ends then, because the user can repeat the
    command."""
    claims = services.claims
    held = claims.claim_these(executions.QUEUE, owner, [execution_id])
    outcome = work_through(claims, executions.QUEUE, held, lambda claim: fetch_list(services, claim), threads=1)
    if reason := outcome.retried.get(execution_id):
        with transaction(services.engine) as rows:
            _end(rows, services, [execution_id], reason)
    return bool(outcome.done)


def _end(rows: Connection, services: Services, ids: Sequence[int], reason: str) -> None:
    """End executions that were not listed."""
    executions.end_unlisted(rows, services.claims.withdraw(rows, executions.QUEUE, ids, reason), reason)


def _adopt(services: Services, connection: ApiAccess, execution_id: int, say: Callable[[str], None]) -> None:
    """Continue with unclaimed analyses that earlier commands for the same organization left behind."""
    with transaction(services.engine) as rows:
        source = analyses.source_of(connection.get_url)
        adopted = analyses.adopt(rows, execution_id, source, connection.organization_id)
    if adopted:
        say(f"{len(adopted)} analyses left by an earlier command")


def _take_over_from_dead(services: Services, connection: ApiAccess, say: Callable[[str], None]) -> None:
    """Release the claims of killed commands, and end their executions that were not listed."""
    _wait_for_dead(services, connection, say)
    with transaction(services.engine) as rows:
        # A living command claims its execution right after it has started it.
        values = {
            "queue": executions.QUEUE.name,
            "organization": connection.organization_id,
            "lease": services.settings.lease_seconds,
        }
        _end(rows, services, rows.scalars(_UNLISTED, values).all(), _NO_LIST)


def _wait_for_dead(services: Services, connection: ApiAccess, say: Callable[[str], None]) -> None:
    """Wait until every lease of an earlier command has run out, which means it was killed, or was renewed."""
    first = _leases(services, connection)
    if first:
        say("An earlier command holds some work; looking whether it still does that")
    while True:
        leases = _leases(services, connection)
        for owner, (_, over) in leases.items():
            if over:
                services.claims.release(owner, died=True)
        if not any(not over and first.get(owner, (None,))[0] == until for owner, (until, over) in leases.items()):
            return
        time.sleep(_LOOK_AGAIN_SECONDS)


def _leases(services: Services, connection: ApiAccess) -> dict[str, tuple[datetime, bool]]:
    """The commands that hold claims for the organization, by owner: when their leases end, and whether they have."""
    values = {
        "analyses": analyses.QUEUE.name,
        "executions": executions.QUEUE.name,
        "source": analyses.source_of(connection.get_url),
        "organization": connection.organization_id,
    }
    with transaction(services.engine) as rows:
        found = rows.execute(_LEASES, values)
        return {row.owner: (row.until, row.over) for row in found}


def _work(services: Services, owner: str, execution_id: int, say: Callable[[str], None]) -> None:
    with transaction(services.engine) as rows:
        ids = rows.scalars(text("select id from vision_analyses where execution_id = :id"), {"id": execution_id}).all()
    held = services.claims.claim_these(analyses.QUEUE, owner, ids)
    say(f"{len(ids)} unprocessed analyses")
    with Crew(services, owner, patience=model.BATCH_SECONDS) as crew:
        outcome = crew.deliver(held)
    told = runs.problems(services, outcome, crew.waiting)
    for item, name in runs.names(services, runs.ids(outcome)).items():
        say(f"{name}: {told.get(item, 'delivered')}")


def _others_finished(services: Services, execution_id: int) -> Mapping[str, Any]:
    """The execution, after waiting for Dagster runs that have taken some of its analyses."""
    until = time.monotonic() + model.BATCH_SECONDS
    while True:
        (execution,) = executions.summaries(services.engine, [execution_id])
        if execution["status"] != ExecutionStatus.RUNNING or not _claimed(services, execution_id):
            return execution
        if time.monotonic() > until:
            return execution
        time.sleep(_LOOK_AGAIN_SECONDS)


def _claimed(services: Services, execution_id: int) -> bool:
    with transaction(services.engine) as rows:
        return bool(
            rows.scalar(
                text("""
                    select exists (
                        select from work_items w left join vision_analyses a on a.id = w.item_id
                        where w.state = 'claimed' and (
                            (w.queue = 'vision_analyses' and a.execution_id = :id)
                            or (w.queue = 'vision_executions' and w.item_id = :id)))
                """),
                {"id": execution_id},
            )
        )


_LEASES = text("""
    select w.owner, max(w.due_at) as until, max(w.due_at) <= now() as over
    from work_items w left join vision_analyses a on a.id = w.item_id and w.queue = :analyses
    where w.state = 'claimed' and w.owner like 'command-%' and (
        (w.queue = :analyses and a.source = :source and lower(a.organization_id) = lower(:organization))
        or (w.queue = :executions and lower(w.tenant) = lower(:organization)))
    group by w.owner
""")

_UNLISTED = text("""
    select e.id from vision_executions e join work_items w on w.queue = :queue and w.item_id = e.id
    where e.trigger = 'command' and w.state = 'waiting' and lower(w.tenant) = lower(:organization)
        and e.started_at < now() - make_interval(secs => :lease)
    for update of w skip locked
""")
