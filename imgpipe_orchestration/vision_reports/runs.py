"""What a Dagster run does before and after the work on its analyses: claim what is due, and sum up the outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.vision_reports import analyses, executions
from imgpipe_orchestration.vision_reports.listing import fetch_list
from imgpipe_orchestration.vision_reports.model import AT_ONCE
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

_LISTED, _LISTED_AT_ONCE = 50, 16
"""Executions that a run lists, and how many of them at the same time: the work on analyses begins when all lists have
been read, so slow ones delay it."""


@dataclass(frozen=True, slots=True)
class Taken:
    """An analysis that a run has claimed, with a name for people."""

    claim: Claim
    name: str
    organization_id: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The analyses that a run has claimed, and a sentence for each execution that could not be listed."""

    taken: list[Taken]
    waiting: list[str]
    """Executions that are tried again."""
    given_up: list[str]
    """Executions that failed for good."""


def begin(services: Services, run_id: str) -> Begun:
    """Start the due executions, list them, and claim due analyses."""
    claims, engine = services.claims, services.engine
    executions.start_due(engine, claims)
    with claims.hold(run_id):
        due = claims.claim(executions.QUEUE, run_id, _LISTED)
        executions.note_run(engine, [claim.item_id for claim in due], run_id)
        outcome = work_through(
            claims, executions.QUEUE, due, lambda claim: fetch_list(services, claim), threads=_LISTED_AT_ONCE
        )
        taken = claims.owned(analyses.QUEUE, run_id)
        taken += claims.claim(analyses.QUEUE, run_id, max(0, AT_ONCE - len(taken)))
    waiting, given_up = (_not_listed(services, problems) for problems in (outcome.retried, outcome.failed))
    return Begun(described(services, taken, run_id), waiting, given_up)


def _not_listed(services: Services, problems: Mapping[int, str]) -> list[str]:
    with transaction(services.engine) as rows:
        names = executions.names(rows, list(problems))
        return [
            f"Execution {number}{f' of {names[number]}' if number in names else ''}: "
            + executions.with_next_try(rows, executions.QUEUE.name, number, reason)
            for number, reason in sorted(problems.items())
        ]


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
    """How many of these analyses are successful, failed and waiting, and the total, by day of creation."""
    with transaction(services.engine) as rows:
        found = rows.execute(
            text("select created_day, status from vision_analyses where id = any(:ids)"), {"ids": list(analysis_ids)}
        ).all()
    days: dict[str, Counter[str]] = {}
    for row in found:
        days.setdefault(str(row.created_day), Counter())[row.status] += 1
    return {day: _totals(counts) for day, counts in sorted(days.items())}


def _totals(counts: Counter[str]) -> dict[str, int]:
    """Counts by status, under the names that an execution's totals have."""
    total, successful, failed = counts.total(), counts["delivered"], counts["failed"]
    return {"total": total, "successful": successful, "failed": failed, "waiting": total - successful - failed}
