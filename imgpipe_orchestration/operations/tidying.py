"""What a nightly job tidies up: history that is past its retention; and, as `imgpipe gc` too, garbage in all buckets
(objects that no row names, and rows whose objects are missing)."""

from collections.abc import Collection
from datetime import timedelta

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.operations.kinds import KINDS
from imgpipe_orchestration.storage import history
from imgpipe_orchestration.storage.holdings import Collected, collect
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.wiring.services import Services

GRACE_HOURS = 24.0
"""Age at which an object without a row is garbage."""
ACCOUNTS_DAYS = 400
"""Days that uses of paid calls are kept, to compare spending with last year's. Answers are kept for ever."""

HOLDINGS = {kind.pipeline: kind for kind in sorted(KINDS, key=lambda kind: kind.pipeline) if kind.kept}


def collect_garbage(
    services: Services, names: Collection[str] = (), *, act: bool, grace_hours: float, even_most: bool = False
) -> list[Collected]:
    """Look through the buckets of the pipelines `names` (all when empty), one after the other.

    Raises:
        NotFound: no such pipeline.
        BackendUnavailable: object store or database went away.
    """
    if unknown := set(names) - set(HOLDINGS):
        raise NotFound(f"No pipeline {', '.join(sorted(unknown))}; there are {', '.join(HOLDINGS)}.")
    with transaction(services.engine) as connection:  # by the database's clock: a wrong one would delete young objects
        now = time_of(connection)
    before = now - timedelta(hours=grace_hours)
    wanted = [name for name in HOLDINGS if not names or name in names]
    return [collect(HOLDINGS[name].holding(services), before=before, act=act, even_most=even_most) for name in wanted]


def tidy(services: Services) -> dict[str, int]:
    """Remove history that is past its retention; returns the number of removed rows by kind (for vision reports:
    executions and uploads together). Dead letters, committed answers of paid calls and all that is unfinished
    are kept.

    Raises:
        BackendUnavailable: the database went away; rows that were removed before stay removed.
    """
    engine, days = services.engine, services.settings.retention_days
    removed = history.purge(engine, days, ACCOUNTS_DAYS)
    of_features = [kind.tidy(services, days) for kind in KINDS]
    return {
        **removed,
        "audit_months": audit.keep_months(engine, services.settings.audit_days),
        **{name: count for tidied in of_features for name, count in tidied.items()},
    }
