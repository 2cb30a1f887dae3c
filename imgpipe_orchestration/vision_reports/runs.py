"""Whether a run is due, and what it does before and after the work on its analyses: claim them, sum up the outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import text

from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome
from imgpipe_orchestration.vision_reports import analyses, batches, crew, cron_jobs, executions
from imgpipe_orchestration.vision_reports.crew import Crew
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services


def reports_due(services: Services) -> bool:
    """Whether a cron job, the listing of an execution or an analysis is due; three index look-ups."""
    with transaction(services.engine) as rows:
        if cron_jobs.any_due(rows):
            return True
    return any(services.claims.due_partitions(queue, limit=1) for queue in (executions.QUEUE, analyses.QUEUE))


def batches_due(services: Services) -> bool:
    """Whether a batch of our own backend waits."""
    return bool(services.claims.due_partitions(batches.QUEUE, limit=1))


def crew_of(services: Services, owner: str) -> Crew:
    """What works on the analyses of a run; to be closed."""
    return Crew(services, owner, patience=crew.PATIENCE_SECONDS, seconds=crew.RUN_SECONDS)


def take(services: Services, run_id: str, most: int, *, but: Collection[str] = ()) -> list[Claim]:
    """Claim up to so many due analyses, none of these organizations."""
    claimed = services.claims.claim(analyses.QUEUE, run_id, most, but=but)
    note(services, run_id, claimed)
    return claimed


def note(services: Services, run_id: str, claims: Sequence[Claim]) -> None:
    """Link the executions of claimed analyses to the run."""
    if not claims:
        return
    with transaction(services.engine) as rows:
        found = rows.scalars(
            text("select distinct execution_id from vision_analyses where id = any(:ids) and execution_id is not null"),
            {"ids": [claim.item_id for claim in claims]},
        ).all()
    executions.note_run(services.engine, sorted(found), run_id)


def ids(outcome: Outcome) -> list[int]:
    """The analyses that were worked on."""
    return [*(claim.item_id for claim in outcome.done), *outcome.retried, *outcome.failed, *outcome.lost]


def names(services: Services, analysis_ids: Sequence[int]) -> dict[int, str]:
    """Their names for people, by their numbers."""
    with transaction(services.engine) as rows:
        found = rows.execute(
            text("select id, run_code, vision_analysis_id from vision_analyses where id = any(:ids) order by id"),
            {"ids": list(analysis_ids)},
        )
        return {row.id: row.run_code or plain_text(row.vision_analysis_id, 200) for row in found}


def problems(services: Services, outcome: Outcome, waiting: Collection[int]) -> dict[int, str]:
    """What became of those that are not delivered, and why.

    Args:
        waiting: those whose batch is only not finished yet.
    """
    with transaction(services.engine) as rows:
        retried = {
            item: f"not finished yet: {why}"
            if item in waiting
            else f"not delivered yet: {executions.with_next_try(rows, analyses.QUEUE.name, item, why)}"
            for item, why in outcome.retried.items()
        }
    failed = {item: f"failed: {why}" for item, why in outcome.failed.items()}
    return {**retried, **failed, **dict.fromkeys(outcome.lost, "another run took it over")}


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
