"""The avatars' schedules."""

from imgpipe_orchestration.avatars.jobs import avatar_checks, avatar_daily
from imgpipe_orchestration.dagster_side.schedules import scheduled

avatar_daily_schedule = scheduled(
    avatar_daily, "20 3 * * *", "Figures of the avatars by day; images of cancelled and failed tasks removed."
)

# Hourly, because the check finds tasks without progress for an hour.
avatar_checks_schedule = scheduled(avatar_checks, "53 * * * *", "Looks every hour for tasks that nobody works on.")
