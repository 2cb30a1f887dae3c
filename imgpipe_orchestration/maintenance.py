"""What keeps the project's tables from growing for ever: history older than its retention is taken away.

What people may still need stays: dead letters, committed answers of paid calls, everything unfinished.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import retention
from imgpipe_orchestration.vision_reports import retention as vision_reports

IDEMPOTENCY_DAYS = 1
"""As long as clients repeat a request under one key; Stripe keeps a day too."""


@dataclass(frozen=True, slots=True)
class Tidied:
    """Rows that were removed."""

    items: int
    attempts: int
    job_instances: int
    paid_call_uses: int
    vision_reports: int
    """Executions, batches and uploads, with their objects."""

    def figures(self) -> dict[str, int]:
        return asdict(self)


def tidy(backends: Services) -> Tidied:
    """Remove history that is past its retention, at most RETENTION_MOST_ROWS of each kind.

    Raises:
        BackendUnavailable: the database went away; what was removed until then stays removed.
    """
    settings = backends.settings
    most = settings.retention_most_rows
    work = backends.claims.purge(settings.retention_days, limit=most)
    instances = retention.purge_job_instances(backends.engine, settings.retention_days, limit=most)
    retention.purge_upload_traces(backends.engine, settings.retention_days, limit=most)
    retention.purge_listing_answers(backends.engine, IDEMPOTENCY_DAYS, limit=most)
    uses = retention.purge_paid_call_uses(backends.engine, settings.retention_accounts_days, limit=most)
    reports = vision_reports.tidy(backends, settings.retention_days, most)
    return Tidied(work.items, work.attempts, instances, uses, reports)
