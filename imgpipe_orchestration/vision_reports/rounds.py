"""What a run does around its analyses: take what is due, and say in the end what came of it.

The Dagster job and the command line both go through here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.vision_reports import analyses, batches, cron_jobs, executions
from imgpipe_orchestration.vision_reports.listing import fetch_list
from imgpipe_orchestration.vision_reports.model import AT_ONCE, plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

_LISTED_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Taken:
    """An analysis that a run has taken, under a name people know."""

    claim: Claim
    name: str
    organization_id: str


def reports_due(services: Services) -> str:
    """Why a run is wanted, or an empty text. Looks at three indexes and calls nobody."""
    with transaction(services.engine) as rows:
        if cron_jobs.any_due(rows):
            return "a cron job's time has come"
    if services.claims.due_partitions(executions.QUEUE, limit=1):
        return "an execution waits to be listed"
    if services.claims.due_partitions(analyses.QUEUE, limit=1):
        return "an analysis is due for its next step"
    return ""


def batches_due(services: Services) -> bool:
    """Whether a batch of our own backend waits."""
    return bool(services.claims.due_partitions(batches.QUEUE, limit=1))


def begin(services: Services, owner: str, run_id: str) -> tuple[list[Taken], dict[int, str]]:
    """Start what is due, list it, and take the analyses that can be worked on.

    Returns:
        the analyses taken, and per execution that could not be listed the reason.
    """
    claims, engine = services.claims, services.engine
    executions.start_due(engine, claims)
    problems: dict[int, str] = {}
    with claims.hold(owner):
        due = claims.claim(executions.QUEUE, owner, _LISTED_AT_ONCE)
        executions.note_run(engine, [claim.item_id for claim in due], run_id)
        outcome = work_through(claims, executions.QUEUE, due, lambda claim: fetch_list(services, claim), threads=4)
        problems = {**outcome.failed, **outcome.retried}
        taken = claims.owned(analyses.QUEUE, owner)
        taken += claims.claim(analyses.QUEUE, owner, max(0, AT_ONCE - len(taken)))
    return described(services, taken, run_id), problems


def described(services: Services, claims: Sequence[Claim], run_id: str) -> list[Taken]:
    """Claims with the names of their analyses; links their executions to the run."""
    with transaction(services.engine) as rows:
        found = {
            row.id: row
            for row in rows.execute(
                text("select * from vision_analyses where id = any(:ids)"), {"ids": [c.item_id for c in claims]}
            )
        }
    executions.note_run(services.engine, sorted({r.execution_id for r in found.values() if r.execution_id}), run_id)
    return [
        Taken(
            claim,
            found[claim.item_id].run_code or plain_text(found[claim.item_id].vision_analysis_id, 200),
            found[claim.item_id].organization_id,
        )
        for claim in claims
    ]


def summary(services: Services, analysis_ids: Sequence[int]) -> dict[str, Mapping[str, int]]:
    """Per day of creation: total, successful, failed and still waiting of these analyses."""
    with transaction(services.engine) as rows:
        found = rows.execute(
            text("select created_day, status from vision_analyses where id = any(:ids)"), {"ids": list(analysis_ids)}
        ).all()
    days: dict[str, Counter[str]] = {}
    for row in found:
        days.setdefault(str(row.created_day), Counter())[row.status] += 1
    return {day: totals_of(counts) for day, counts in sorted(days.items())}


def totals_of(counts: Mapping[str, Any]) -> dict[str, int]:
    """Counts by status as the words of an execution."""
    successful, failed = counts.get("delivered", 0), counts.get("failed", 0)
    total = sum(counts.values())
    return {"total": total, "successful": successful, "failed": failed, "waiting": total - successful - failed}
