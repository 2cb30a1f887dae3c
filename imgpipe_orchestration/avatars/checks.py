"""The asset check of the avatars."""

import dagster as dg

from imgpipe_orchestration.avatars.assets import avatar_daily_figures
from imgpipe_orchestration.resources import BackendsResource


@dg.asset_check(
    asset=avatar_daily_figures,
    description="No open task is without progress for an hour while its work could be done: are the sensors running?",
)
def avatar_tasks_move(backends: BackendsResource) -> dg.AssetCheckResult:
    from imgpipe_orchestration.avatars import figures
    from imgpipe_orchestration.storage.rows import transaction

    with transaction(backends.services.engine) as connection:
        stuck = figures.stuck(connection)
    return dg.AssetCheckResult(passed=not stuck, metadata={"stuck": len(stuck), "tasks": ", ".join(stuck[:20])})
