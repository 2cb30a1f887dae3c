"""What a Dagster run does before and after the work on its analyses: claim what is due, and sum up the outcomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import analyses, executions
from imgpipe_orchestration.web.names import plain_text

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services


@dataclass(frozen=True, slots=True)
class Taken:
    """An analysis that a run has claimed, with a name for people."""

    claim: Claim
    name: str
    organization_id: str


def take(
    services: Services, run_id: str, most: int, *, but: Collection[str] = (), also: Sequence[Claim] = ()
) -> list[Taken]:
    """Claim up to so many due analyses, none of these organizations. `also` is described with them."""
    claimed = services.claims.claim(analyses.QUEUE, run_id, most, but=but)
    return described(services, [*also, *claimed], run_id) if also or claimed else []


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
