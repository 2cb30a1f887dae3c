"""One execution from the command line, in this process and without Dagster.

Unfinished analyses stay in the queue: the next Dagster run goes on with them, or the next command for the same external
API and organization.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Connection, text

from imgpipe_orchestration.partners.http import at_host
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.vision_reports import analyses, executions, model
from imgpipe_orchestration.vision_reports.crew import Crew
from imgpipe_orchestration.vision_reports.listing import fetch_list
from imgpipe_orchestration.vision_reports.model import ApiAccess, ExecutionStatus, ExecutionTrigger

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

_LOOK_AGAIN_SECONDS = 1.0
_NO_LIST = "The command ended before it had the list."


def run_now(services: Services, connection: ApiAccess, say: Callable[[str], None]) -> Mapping[str, Any]:
    """One execution over `connection`. Returns it as in `executions.recent`; its status is still `running` when
    something failed that will be tried again later.

    Args:
        say: is called with each line for the user.
    """
    owner, claims = f"command-{uuid4()}", services.claims
    organization, source = connection.organization_id, analyses.source_of(connection.get_url)
    say(f"{at_host('The Vision Analysis API', connection.get_url)}, organization {organization}")
    _wait_for_dead(services, source, organization, say)
    with transaction(services.engine) as rows:
        # A living command claims its execution right after it has started it.
        lease = services.settings.lease_seconds
        values = {"queue": executions.QUEUE.name, "organization": organization, "lease": lease}
        _end(rows, services, rows.scalars(_UNLISTED, values).all(), _NO_LIST)
        sealed = executions.sealed(connection, services.vault)
        execution = executions.start(rows, claims, ExecutionTrigger.COMMAND, connection=sealed, tenant=organization)
    try:
        with claims.hold(owner):
            held = claims.claim_these(executions.QUEUE, owner, [execution.id])
            outcome = work_through(claims, executions.QUEUE, held, lambda claim: fetch_list(services, claim), threads=1)
            if reason := outcome.retried.get(execution.id):
                with transaction(services.engine) as rows:  # it ends now, because the user can repeat the command
                    _end(rows, services, [execution.id], reason)
            if outcome.done:
                with transaction(services.engine) as rows:
                    adopted = analyses.adopt(rows, execution.id, source, organization)
                if adopted:
                    say(f"{len(adopted)} analyses left by an earlier command")
                _work(services, owner, execution.id, say)
        return _others_finished(services, execution.id)
    finally:
        unlisted = [claim.item_id for claim in claims.owned(executions.QUEUE, owner)]
        with transaction(services.engine) as rows:
            _end(rows, services, unlisted, _NO_LIST)
        claims.release(owner)


def _end(rows: Connection, services: Services, ids: Sequence[int], reason: str) -> None:
    """End executions that were not listed."""
    executions.end_unlisted(rows, services.claims.withdraw(rows, executions.QUEUE, ids, reason), reason)


def _wait_for_dead(services: Services, source: str, organization: str, say: Callable[[str], None]) -> None:
    """Wait until every lease of an earlier command has run out, which means it was killed, or was renewed. Releases the
    claims of those that were killed."""
    values = {
        "analyses": analyses.QUEUE.name,
        "executions": executions.QUEUE.name,
        "source": source,
        "organization": organization,
    }
    first: dict[str, datetime] | None = None
    while True:
        with transaction(services.engine) as rows:
            leases = rows.execute(_LEASES, values).all()
        if first is None:
            first = {row.owner: row.until for row in leases}
            if first:
                say("An earlier command holds some work; looking whether it still does that")
        for row in leases:
            if row.over:
                services.claims.release(row.owner, died=True)
        if not any(not row.over and first.get(row.owner) == row.until for row in leases):
            return
        time.sleep(_LOOK_AGAIN_SECONDS)


def _work(services: Services, owner: str, execution_id: int, say: Callable[[str], None]) -> None:
    with transaction(services.engine) as rows:
        ids = rows.scalars(text("select id from vision_analyses where execution_id = :id"), {"id": execution_id}).all()
    held = services.claims.claim_these(analyses.QUEUE, owner, ids)
    say(f"{len(ids)} unprocessed analyses")
    with ExitStack() as opened:
        crew = Crew(services, owner, opened, patience=model.BATCH_SECONDS)
        outcome = crew.deliver(held)
    for name, end in crew.told(outcome).values():
        say(f"{name}: {end}")


def _others_finished(services: Services, execution_id: int) -> Mapping[str, Any]:
    """The execution, after waiting for Dagster runs that have taken some of its analyses."""
    until = time.monotonic() + model.BATCH_SECONDS
    while True:
        (execution,) = executions.recent(services.engine, execution_id, by="id")
        with transaction(services.engine) as rows:
            claimed = rows.scalar(_CLAIMED, {"id": execution_id})
        if execution["status"] != ExecutionStatus.RUNNING or not claimed or time.monotonic() > until:
            return execution
        time.sleep(_LOOK_AGAIN_SECONDS)


_CLAIMED = text("""
    select exists (
        select from work_items w left join vision_analyses a on a.id = w.item_id
        where w.state = 'claimed' and (
            (w.queue = 'vision_analyses' and a.execution_id = :id)
            or (w.queue = 'vision_executions' and w.item_id = :id)))
""")

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
