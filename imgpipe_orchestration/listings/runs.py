"""One run over the queue: image after image until nothing is due, the time is up or the job was stopped.

An image is claimed when a worker process is free for it, so uploaders take turns, and what comes meanwhile joins. One
uploader's giant animations leave a process to the images of others.
"""

import hashlib
import itertools
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Row

from imgpipe_orchestration.errors import BackendUnavailable, NotFound, Retryable
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.lifecycle.trash import dropping
from imgpipe_orchestration.listings import model, steps, store
from imgpipe_orchestration.listings.lifecycle import LISTED
from imgpipe_orchestration.moderation.judging import Judges
from imgpipe_orchestration.storage import job_definitions, work
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

RUN_SECONDS = 300.0
"""Time budget of one run over the queue."""
_ERRORS = 5


@dataclass
class Drained:
    """What a run did, for its metadata and for `GET /api/jobs/{id}`."""

    made: list[Claim] = field(default_factory=list)
    """Each is added as soon as it is done, so that it is known also after an error."""
    outcome: work.Outcome = field(default_factory=work.Outcome)
    """Empty after an error."""
    ended: str = "nothing more is due"
    away: str = ""
    """The message of the backend that did not answer; empty while all do. The run then ends."""

    @property
    def processed(self) -> int:
        return len(self.made)

    def as_json(self) -> dict[str, Any]:
        seconds, errors = self.outcome.seconds, {**self.outcome.retried, **self.outcome.failed}
        return {
            "processed": self.processed,
            "retried": len(self.outcome.retried),
            "failed": len(self.outcome.failed),
            "seconds": round(seconds, 2),
            "images_per_second": round(self.processed / seconds, 3) if seconds else 0.0,
            "ended": self.ended,
            "errors": list(errors.values())[:_ERRORS],
        }


def _process(services: Services, judges: Judges, total: Drained, claim: Claim) -> None:
    """Read the original of an image, store its WebP, then settle row and item in one transaction.

    The same original gives the same bytes under the same name, so after a crash between the two the work is simply
    repeated.

    Raises:
        BadImage, TooLarge, NotFound: a retry would not help.
        Retryable: a retry may help.
        LeaseLost: another run has taken the image over.
    """
    bucket = services.listings_bucket
    try:
        with autocommit(services.engine) as connection:
            image = store.work(connection, claim.item_id)
        try:
            original = bucket.get(image.original_key, size=image.bytes)
        except NotFound as error:  # or it will be there: the object store may just have failed over
            raise Retryable("The original is not in the object store.") from error
        user = int(claim.tenant) if claim.tenant else None
        judges.begin(claim.item_id, user_id=user, sha256=hashlib.sha256(original).hexdigest())
        with services.rendering.place(claim.tenant):
            file = services.workshop.call(steps.make_aside, original)
        steps.store(file, image.file_name, bucket)
    except BackendUnavailable as error:
        total.away = error.public
        raise
    with (
        dropping(services, f"listings/{claim.item_id}", bucket, [image.file_name]),
        transaction(services.engine) as connection,
    ):
        services.claims.finish(connection, store.QUEUE, claim)
        if store.rendered(connection, claim.item_id, file):
            cdn.order(services, connection, [f"{LISTED.kind.tag}{claim.item_id}"])
    total.made.append(claim)


def drain(services: Services, owner: str, total: Drained, *, only_day: str | None = None) -> None:
    """Work on what is due, within RUN_SECONDS.

    Args:
        owner: of the claims. Those that it has taken over from a run that it repeats are released first.
        total: is updated during the run, so that the caller knows what was done also after an error.
        only_day: work on this day of upload only (YYYY-MM-DD), even if the job is stopped.

    Raises:
        BackendUnavailable: the database is away.
    """
    deadline = time.monotonic() + RUN_SECONDS
    services.claims.release(owner, died=True)
    with work.working_as(services.claims, owner), Judges(services, owner, LISTED) as judges:
        turns = itertools.count()

        def take(free: int, full: Collection[str], *, joining: bool = False) -> list[Claim]:
            """The next claims, of none of the uploaders who have enough; empty when nothing more is to be begun."""
            job = _goes_on(services, only_day, total)
            if job is None:
                return []
            size = min(free, int(job.payload.get("batch_size", model.DEFAULT_BATCH_SIZE)))
            days = services.claims.due_partitions(store.QUEUE) if only_day is None else [only_day]
            # The latest one's uploaders are waiting; every second turn is the oldest one's, or it could wait for ever.
            for day in days if next(turns) % 2 else days[::-1]:
                if batch := services.claims.claim(
                    store.QUEUE, owner, size, partition=day, suspects=not joining, but=full
                ):
                    return batch
            return []

        # Two for each process, so that originals are read and results stored meanwhile.
        threads = 2 * services.workshop.workers
        total.outcome = work.drain(
            services.claims,
            store.QUEUE,
            owner,
            partial(_process, services, judges, total),
            threads=threads,
            take=take,
            seconds=RUN_SECONDS,
            share=threads - 2,
        )
    if time.monotonic() >= deadline:
        total.ended = "the time budget is used up"
    log.info("image queue drained", extra=total.as_json())


def run(services: Services, run_id: str, done: Drained) -> None:
    """Drain the queue and write the result into the job's row, for `GET /api/jobs/process-image-queue`.

    Raises:
        SettingsError, BackendUnavailable: see `drain`; the result then names the error.
    """
    with transaction(services.engine) as connection:
        job_definitions.started(connection, model.JOB_ID, run_id)
    try:
        drain(services, run_id, done)
    except BaseException as error:
        done.ended = f"the run failed: {str(error) or type(error).__name__}"
        raise
    finally:
        with transaction(services.engine) as connection:
            job_definitions.finished(connection, model.JOB_ID, run_id, done.as_json())


def make_again(services: Services, owner: str, day: str, done: Drained) -> int:
    """Put the finished images of a day of upload (`YYYY-MM-DD`) back into the queue and work through that day. Returns
    how many were put back; those that the time budget left stay queued for the next run.
    """
    with transaction(services.engine) as connection:
        count = store.again(connection, services.claims, day)
    drain(services, owner, done, only_day=day)
    return count


def make_now(services: Services, owner: str, image_id: int) -> None:
    """Process one image now, before all that wait; one that a run is working on is left to it.

    Raises:
        BackendUnavailable: see `drain`.
    """
    with work.working_as(services.claims, owner), Judges(services, owner, LISTED) as judges:
        batch = services.claims.claim_these(store.QUEUE, owner, [image_id])
        process = partial(_process, services, judges, Drained())
        work.work_through(services.claims, store.QUEUE, batch, process, threads=1)


def _goes_on(services: Services, only_day: str | None, total: Drained) -> Row[Any] | None:
    """The job's present definition; None when nothing more is to be begun, with the reason in `total.ended`."""
    if total.away:
        total.ended = total.away
        return None
    with transaction(services.engine) as connection:
        job = job_definitions.get(connection, model.JOB_ID)
    if only_day is None and not job.enabled:
        total.ended = "the job was stopped"
        return None
    return job
