"""Decides when the queue is worked on. The sensor and `GET /api/jobs/{id}` use it."""

from __future__ import annotations

from datetime import datetime, timedelta

from imgpipe_orchestration.listings import model, store
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.job_definitions import JobDefinition
from imgpipe_orchestration.storage.rows import transaction

LOOK_EVERY = timedelta(seconds=10)
"""How often the sensor ticks. A job with a shorter interval runs at every tick."""


def due(services: Services) -> list[str] | str:
    """The latest day of upload that has something due, or why no run is wanted now; index look-ups only.

    Raises:
        BackendUnavailable: the database is away.
    """
    with transaction(services.engine) as connection:
        # Sets `last_checked_at`, so that all times are the database's.
        job_definitions.checked(connection, model.JOB_ID)
        job = job_definitions.find(connection, model.JOB_ID)
    if job is None or not job.enabled:
        return "the job is stopped; POST /api/jobs starts it again"
    days = services.claims.due_partitions(store.QUEUE)
    if days and _began_just_now(job):
        return f"the last run began less than {job.interval} ago"
    return days[-1:]


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
