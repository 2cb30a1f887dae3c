"""Garbage collection in all buckets, for `imgpipe gc` and a nightly job: objects that no row names, and rows whose
objects are missing."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.kinds import KINDS
from imgpipe_orchestration.storage.holdings import Collected, collect
from imgpipe_orchestration.storage.rows import time_of, transaction

if TYPE_CHECKING:
    from imgpipe_orchestration.services import Services

GRACE_HOURS = 24.0
"""Age at which an object without a row is garbage."""

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
