"""The media pipeline's schedules."""

from imgpipe_orchestration.dagster_side.sensors import scheduled
from imgpipe_orchestration.media.jobs import media_checks, media_reconciliation

# Off the full hour, when everybody else's jobs start.
media_checks_schedule = scheduled(
    media_checks, "23 * * * *", "Looks every hour for faults that no single step would notice."
)

media_reconciliation_schedule = scheduled(
    media_reconciliation, "41 3 * * *", "Takes up in the quiet of the night what slipped by."
)
