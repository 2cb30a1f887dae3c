"""Whether a run is due, and what it does before and after the work on its analyses: claim them, sum up the outcomes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import text

from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome
from imgpipe_orchestration.vision_reports import analyses, batches, cron_jobs, executions
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


def summary(services: Services, analysis_ids: Sequence[int]) -> dict[str, dict[str, int]]:
    """How many of these analyses are successful, failed and waiting, and the total, by day of creation."""
    query = """
        select cast(created_day as text) as day, count(*) as total,
            count(*) filter (where status = 'delivered') as successful,
            count(*) filter (where status = 'failed') as failed,
            count(*) filter (where status not in ('delivered', 'failed')) as waiting
        from vision_analyses where id = any(:ids) group by created_day order by created_day
    """
    with transaction(services.engine) as rows:
        found = [dict(row._mapping) for row in rows.execute(text(query), {"ids": list(analysis_ids)})]
    return {row.pop("day"): row for row in found}
