"""The job `process-image-queue`: whether a run is wanted, and a run that records its result."""

from __future__ import annotations

from imgpipe_orchestration.listings import model, store, timing
from imgpipe_orchestration.listings.drain import Drained, drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.rows import transaction


def run(services: Services, run_id: str, done: Drained | None = None) -> Drained:
    """Drain the queue and write the result into the job's row, for `GET /api/jobs/process-image-queue`.

    Args:
        done: see `drain`'s `total`.

    Raises:
        SettingsError, BackendUnavailable: see `drain`; the result then names the error.
    """
    done = done or Drained()
    with transaction(services.engine) as connection:
        job_definitions.started(connection, model.JOB_ID, run_id)
    try:
        drain(services, run_id, total=done)
    except BaseException as error:
        done.ended = f"the run failed: {str(error) or type(error).__name__}"
        raise
    finally:
        with transaction(services.engine) as connection:
            job_definitions.finished(connection, model.JOB_ID, run_id, done.as_json())
    return done


def make_again(services: Services, owner: str, day: str) -> tuple[int, Drained]:
    """Put the finished images of a day of upload (`YYYY-MM-DD`) back into the queue and work through that day.

    Returns:
        how many were put back, and what was done. Images that the time budget left stay queued for the next run.

    Raises:
        SettingsError, BackendUnavailable: see `drain`.
    """
    with transaction(services.engine) as connection:
        count = store.again(connection, services.claims, store.QUEUE, day)
    return count, drain(services, owner, only_day=day)


def reason_to_wait(services: Services, running: str | None, *, another: bool = False) -> str | None:
    """Why no run is wanted now, or None when one is; two index look-ups, however many images wait.

    Args:
        running: the id of an unfinished run, if there is one.
        another: whether a further run may start beside it.

    Raises:
        BackendUnavailable: the database is away.
    """
    with transaction(services.engine) as connection:
        job_definitions.checked(connection, model.JOB_ID)
        job = job_definitions.find(connection, model.JOB_ID)
        if job is not None and job.last_run_id and job.last_finished_at is None and running is None:
            # The run was killed before it could write its end.
            job_definitions.finished(connection, model.JOB_ID, job.last_run_id, {"ended": "the run stopped unfinished"})
    due = bool(services.claims.due_partitions(store.QUEUE, limit=1))
    return timing.reason_to_wait(job, due=due, running=None if another else running)
