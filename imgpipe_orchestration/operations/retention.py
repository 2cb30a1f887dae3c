"""Retention: removes old history from the project's tables.

Dead letters, committed answers of paid calls, and everything unfinished are kept.
"""

from __future__ import annotations

from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.kinds import KINDS
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import history, kept_answers

ACCOUNTS_DAYS = 400
"""Days that uses of paid calls are kept: last year's can be compared with this one's. Answers stay for ever."""


def tidy(services: Services) -> dict[str, int]:
    """Remove history that is past its retention; returns the number of removed rows by kind (for vision reports:
    executions, batches and uploads together).

    Raises:
        BackendUnavailable: the database went away; rows that were removed before stay removed.
    """
    engine, days = services.engine, services.settings.retention_days
    work = history.purge_work(engine, days)
    of_features = [kind.tidy(services, days) for kind in KINDS]
    return {
        "items": work.items,
        "attempts": work.attempts,
        "job_instances": history.purge_job_instances(engine, days),
        "kept_answers": kept_answers.forget_answers(engine),
        "paid_call_uses": history.purge_paid_call_uses(engine, ACCOUNTS_DAYS),
        "audit_months": audit.keep_months(engine, services.settings.audit_days),
        **{name: count for tidied in of_features for name, count in tidied.items()},
    }
