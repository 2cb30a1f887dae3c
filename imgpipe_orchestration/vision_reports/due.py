"""Whether a run of the vision reports is due: the sensors' questions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import analyses, batches, cron_jobs, executions

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
