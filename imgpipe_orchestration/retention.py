"""Retention: removes old history from the project's tables.

Dead letters, committed answers of paid calls, and everything unfinished are kept.
"""

from __future__ import annotations

from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.media import direct_uploads, registering
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import kept_answers, retention
from imgpipe_orchestration.vision_reports import retention as vision_reports


def tidy(services: Services) -> dict[str, int]:
    """Remove history that is past its retention; returns the number of removed rows by kind (for vision reports:
    executions, batches and uploads together).

    Raises:
        BackendUnavailable: the database went away; rows that were removed before stay removed.
    """
    settings, engine = services.settings, services.engine
    days = settings.retention_days
    work = retention.purge_work(engine, days)
    return {
        "items": work.items,
        "attempts": work.attempts,
        "job_instances": retention.purge_job_instances(engine, days),
        "presigned_uploads": direct_uploads.forget_presigned(engine),
        "upload_traces": registering.forget_upload_traces(engine, days),
        "kept_answers": kept_answers.forget_answers(engine),
        "paid_call_uses": retention.purge_paid_call_uses(engine, settings.retention_accounts_days),
        "audit_months": audit.keep_months(engine, settings.audit_days),
        "vision_reports": vision_reports.tidy(services, days),
    }
