"""Decides when the queue is worked on. The sensor and `GET /api/jobs/{id}` use it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgpipe_orchestration.storage.job_definitions import JobDefinition

LOOK_EVERY = timedelta(seconds=10)
"""How often the sensor ticks. A job with a shorter interval runs at every tick."""


def reason_to_wait(job: JobDefinition | None, *, due: bool, running: str | None) -> str | None:
    """Why no run is asked for now, or None when one is.

    Args:
        job: its row after this tick, which has set `last_checked_at`, so that all times are by the database's clock.
        due: whether an image is due.
        running: the id of an unfinished run, if there is one.
    """
    if job is None or not job.enabled:
        return "the job is stopped; POST /api/jobs starts it again"
    if running is not None:
        return f"run {running} is under way"
    if not due:
        return "nothing is due"
    if _began_just_now(job):
        return f"the last run began less than {job.interval} ago"
    return None


def _began_just_now(job: JobDefinition) -> bool:
    if job.last_started_at is None or job.last_checked_at is None:
        return False
    return timedelta() <= job.last_checked_at - job.last_started_at < job.every  # negative: the clock was set back


def next_run(job: JobDefinition, *, now: datetime) -> datetime | None:
    """When the next run may begin if something is due then; None for a stopped job."""
    if not job.enabled:
        return None
    moments = [now]
    if job.last_checked_at is not None:
        moments.append(job.last_checked_at + LOOK_EVERY)
    if job.last_started_at is not None:
        moments.append(job.last_started_at + job.every)
    return max(moments)
