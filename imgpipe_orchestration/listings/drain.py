"""One run over the queue: image after image until nothing is due, the time is up or the job was stopped.

An image is claimed when a worker process is free for it, so uploaders take turns, and what comes meanwhile joins. One
uploader's giant animations leave a process to the images of others.
"""

import hashlib
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row

from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError, NotFound, Retryable
from imgpipe_orchestration.lifecycle.trash import dropping
from imgpipe_orchestration.listings import model, steps, store
from imgpipe_orchestration.listings.moderation import LISTED
from imgpipe_orchestration.moderation.judging import Judges
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import job_definitions
from imgpipe_orchestration.storage.claims import Claim, State
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

RUN_SECONDS = 300.0
"""Time budget of one run over the queue."""
_EXAMPLES, _ERRORS = 6, 5


@dataclass
class Day:
    """What a run did with one day's uploads."""

    processed: int = 0
    failed: int = 0
    examples: list[tuple[str, bytes]] = field(default_factory=list)
    """File name and a small picture of the first few processed."""


@dataclass
class Drained:
    """What a run did, for its metadata and for `GET /api/jobs/{id}`."""

    processed: int = 0
    retried: int = 0
    failed: int = 0
    seconds: float = 0.0
    ended: str = "nothing more is due"
    days: defaultdict[str, Day] = field(default_factory=lambda: defaultdict(Day))
    """By day of upload."""
    errors: list[str] = field(default_factory=list)
    """The first few reasons."""

    def as_json(self) -> dict[str, Any]:
        rate = self.processed / self.seconds if self.seconds else 0.0
        return {
            "processed": self.processed,
            "retried": self.retried,
            "failed": self.failed,
            "seconds": round(self.seconds, 2),
            "images_per_second": round(rate, 3),
            "ended": self.ended,
            "errors": self.errors,
        }


class Processor:
    """The work of one image, with what all images of a run share."""

    def __init__(self, services: Services, total: Drained, judges: Judges) -> None:
        self.services = services
        self.judges = judges
        self.away = ""
        """The message of the backend that did not answer; empty while all do. The run then ends."""
        self.interrupted = threading.Event()
        """The run is cancelled or its worker stops, or a thread ended with an error: no further images are begun."""
        self._total = total
        self._counting = threading.Lock()

    def process(self, claim: Claim) -> None:
        """Read the original, store its WebP, then settle row and item in one transaction.

        The same original gives the same bytes under the same name, so after a crash between the two the work is simply
        repeated.

        Raises:
            BadImage, TooLarge, NotFound: a retry would not help.
            Retryable: a retry may help.
            LeaseLost: another run has taken the image over.
        """
        bucket, claims = self.services.listings_bucket, self.services.claims
        try:
            with autocommit(self.services.engine) as connection:
                work = store.work(connection, claim.item_id)
            try:
                original = bucket.get(work.original_key, size=work.bytes)
            except NotFound as error:  # or it will be there: the object store may just have failed over
                raise Retryable("The original is not in the object store.") from error
            user = int(claim.tenant) if claim.tenant else None
            self.judges.begin(claim.item_id, user_id=user, sha256=hashlib.sha256(original).hexdigest())
            with self.services.rendering.place(claim.tenant):
                file = self.services.workshop.call(steps.make_aside, original)
            steps.store(file, work.file_name, bucket)
        except BackendUnavailable as error:
            self.away = error.public
            raise
        with (
            dropping(self.services, f"listings/{claim.item_id}", bucket, [work.file_name]),
            transaction(self.services.engine) as connection,
        ):
            claims.finish(connection, store.QUEUE, claim)
            store.rendered(connection, claim.item_id, file)
        self._count(claim, work.file_name, file.data)

    def _count(self, claim: Claim, name: str, data: bytes) -> None:
        from imgpipe_orchestration.imaging.contact_sheet import contact_sheet

        with self._counting:
            day = self._total.days[claim.partition]
            self._total.processed += 1
            day.processed += 1
            if len(day.examples) < _EXAMPLES:
                # As a thumbnail: the animations of many days are gigabytes.
                day.examples.append((name, contact_sheet([data])))

    def failed(self, _: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
        """Count an image that failed."""
        with self._counting:
            if state is State.FAILED:
                self._total.failed += 1
                self._total.days[claim.partition].failed += 1
            else:
                self._total.retried += 1
            if len(self._total.errors) < _ERRORS:
                self._total.errors.append(error.public)


def drain(
    services: Services,
    owner: str,
    *,
    only_day: str | None = None,
    total: Drained | None = None,
) -> Drained:
    """Work on what is due, within RUN_SECONDS.

    Args:
        owner: of the claims. Those that it has taken over from a run that it repeats are released first.
        only_day: work on this day of upload only (YYYY-MM-DD), even if the job is stopped.
        total: is updated during the run, so that the caller knows what was done also after an error.

    Raises:
        BackendUnavailable: the database is away.
    """
    started = time.monotonic()
    deadline = started + RUN_SECONDS
    total = total or Drained()
    services.claims.release(owner, died=True)
    with services.claims.hold(owner), Judges(services, owner, LISTED) as judges:
        processor = Processor(services, total, judges)
        turns = itertools.count()

        def take(free: int, full: Collection[str] = (), *, joining: bool = False) -> list[Claim]:
            """The next claims, of none of the uploaders who have enough; empty when nothing more is to be begun."""
            job = _goes_on(processor, deadline, only_day, total)
            if job is None:
                return []
            size = min(free, int(job.payload.get("batch_size", model.DEFAULT_BATCH_SIZE)))
            days = services.claims.due_partitions(store.QUEUE) if only_day is None else [only_day]
            for day in in_turn(days, next(turns)):
                if batch := services.claims.claim(
                    store.QUEUE, owner, size, partition=day, suspects=not joining, but=full
                ):
                    return batch
            return []

        # Two for each process, so that originals are read and results stored meanwhile.
        threads = 2 * services.workshop.workers
        try:
            while batch := take(threads):
                # Images whose workers died stay by themselves.
                suspects = any(claim.losses for claim in batch)
                work_through(
                    services.claims,
                    store.QUEUE,
                    batch,
                    processor.process,
                    threads=threads,
                    share=threads - 2,
                    further=None if suspects else partial(take, joining=True),
                    deadline=deadline,
                    on_failure=processor.failed,
                    interrupted=processor.interrupted,
                )
        finally:
            total.seconds = time.monotonic() - started
            services.claims.release(owner)
    log.info("image queue drained", extra=total.as_json())
    return total


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


def make_again(services: Services, owner: str, day: str, done: Drained) -> int:
    """Put the finished images of a day of upload (`YYYY-MM-DD`) back into the queue and work through that day. Returns
    how many were put back; those that the time budget left stay queued for the next run.

    Args:
        done: see `drain`'s `total`.
    """
    with transaction(services.engine) as connection:
        count = store.again(connection, services.claims, store.QUEUE, day)
    drain(services, owner, only_day=day, total=done)
    return count


def make_now(services: Services, owner: str, image_id: int) -> None:
    """Process one image now, before all that wait; one that a run is working on is left to it.

    Raises:
        BackendUnavailable: see `drain`.
    """
    with services.claims.hold(owner), Judges(services, owner, LISTED) as judges:
        processor = Processor(services, Drained(), judges)
        try:
            batch = services.claims.claim_these(store.QUEUE, owner, [image_id])
            work_through(services.claims, store.QUEUE, batch, processor.process, threads=1)
        finally:
            services.claims.release(owner)


def _goes_on(processor: Processor, deadline: float, only_day: str | None, total: Drained) -> Row[Any] | None:
    """The job's present definition; None when nothing more is to be begun, with the reason in `total.ended`."""
    if processor.interrupted.is_set():
        return None
    if processor.away:
        total.ended = processor.away
        return None
    if time.monotonic() >= deadline:
        total.ended = "the time budget is used up"
        return None
    with transaction(processor.services.engine) as connection:
        job = job_definitions.get(connection, model.JOB_ID)
    if only_day is None and not job.enabled:
        total.ended = "the job was stopped"
        return None
    return job


def in_turn(days: list[str], turn: int) -> list[str]:
    """In which order to look for work. Every second turn is the latest day's, whose uploaders are waiting, however many
    days a backfill or an outage left; the others are the days' by rotation.

    Args:
        days: those with something due, oldest first.
    """
    if turn % 2 == 0:
        return days[::-1]
    first = turn // 2 % len(days) if days else 0
    return days[first:] + days[:first]
