"""Whether a run is due; and the run, which marks pending documents, a few customers at a time. One customer's error
doesn't stop the others. Each customer's figures are told as soon as they are known.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Row

from imgpipe_orchestration.auto_marker.model import (
    JOB,
    Figures,
    customer_of,
    has_partition,
    partition_key,
    switched_on,
)
from imgpipe_orchestration.auto_marker.store import QUEUE, ImageConfigs, News
from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError
from imgpipe_orchestration.storage import heartbeats, job_instances
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.documents import TookTooLong
from imgpipe_orchestration.storage.job_instances import Trigger
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.storage.work import Outcome, drain, work_through
from imgpipe_orchestration.telemetry.logs import logger
from imgpipe_orchestration.wiring.services import Services

log = logger(__name__)

CUSTOMERS_AT_ONCE = 4
GROUP = 16
"""Customers whose jobs are claimed at a time."""

PAGE_SIZE = 1000
"""Most documents read and written at a time. Bounds the memory of a backfill, and how many documents a crash leaves
marked but not counted."""

MOST_UNMARKABLE = 5 * PAGE_SIZE
"""Documents that a round passes over for one customer before it leaves them: for every page the server sorts all that
is pending of the customer, and other customers wait meanwhile."""

_BEGUN = "auto-marker-round"
"""The heartbeat of the last round that began, even if it failed. JOB's is that of the last one that read MongoDB."""

PATIENCE_SECONDS = 60
"""How long a backfill waits for a round that is at work for its customer."""

OFF = (
    "automatic marking is off for this customer; it is switched on under Auto-marker, or by PUT "
    "/api/customers/{customer_id}/image-config"
)
OFF_MEANWHILE = "automatic marking was switched off meanwhile; what was marked before stays marked"
NOBODY = "there is no document of this customer"


def due(services: Services) -> bool | str:
    """True if somebody asked, or the next round is due and somebody has pending images, or it takes too long to see: a
    run creates the indexes that are missing. Else why no run is wanted. Of a round with nothing to do the heartbeat is
    written here, of others by their run: what a preview of the sensor in Dagster's UI asks for is never run.

    Jobs that cannot start because MongoDB is away pause, with that as the reason.

    Raises:
        BackendUnavailable: PostgreSQL is away.
    """
    asked = services.claims.due_partitions(QUEUE)
    try:
        if not services.settings.mongodb_url:
            raise BackendUnavailable("No MongoDB is configured (MONGODB_URL): there is nothing to mark.")
        if asked:
            services.documents.ping()
            return True
        if not is_time(services):
            return "nothing was asked for and the next round is not due"
        opted_out = ImageConfigs(services.documents).opted_out()
        if News(services.documents).any_to_mark(opted_out=opted_out):
            return True
    except TookTooLong:
        return True
    except BackendUnavailable as away:
        if asked:
            job_instances.keep_waiting(services.engine, JOB, away)
        return away.public
    for name in (_BEGUN, JOB):
        heartbeats.beat(services.engine, name)
    return "no customer has pending images"


def is_time(services: Services) -> bool:
    """Whether the next round over every customer with pending images is due."""
    last = heartbeats.last(services.engine, _BEGUN)
    # Below 0 the clock was set back since.
    return last is None or not 0 <= last.age < services.settings.job_interval_minutes * 60


def begin_round(services: Services) -> tuple[list[str], int]:
    """The customers with pending documents, and the number of documents whose customer_id can be no customer's. This
    is the round that was due."""
    heartbeats.beat(services.engine, _BEGUN)  # first: one that fails for a slow MongoDB must not be repeated at once
    opted_out = ImageConfigs(services.documents).opted_out()
    pending = News(services.documents).pending_by_customer(opted_out=opted_out)
    heartbeats.beat(services.engine, JOB)
    return sorted(filter(None, pending)), pending[""]


def out_of_step(services: Services, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The partition keys to add to and to remove from the `known` ones: customers who have an `image_config`, and those
    who have neither an `image_config` nor a document."""
    configs, news = ImageConfigs(services.documents), News(services.documents)
    configured = {partition_key(customer) for customer in configs.customers() if has_partition(customer)}
    gone = [key for key in known if key not in configured and not news.any_of(customer_of(key))]
    return sorted(configured - set(known)), gone


Tell = Callable[[Figures], None]
"""Is called with each customer's figures when they are known, for one customer at a time, in whatever thread."""


def mark_round(services: Services, customers: Sequence[str], run_id: str, tell: Tell) -> Outcome:
    """Mark AUTO_MARK_BATCH_SIZE documents each of some customers, and of those who have asked or ask meanwhile, who go
    first.

    Args:
        run_id: id of the run, which owns the claims.

    Raises:
        BackendUnavailable: a database went away. Marked documents stay marked; unfinished jobs wait again.
    """
    claims, marker = services.claims, _Marker(services, run_id, tell, services.settings.auto_mark_batch_size)

    def take(_: int, __: Collection[str], *, joining: bool = False) -> list[Claim]:
        """A group of claims, however few threads are free, because a claim takes several statements. None once a
        database is away."""
        if marker.away:
            return []
        asked = job_instances.asked_for(services.engine, JOB, limit=GROUP)
        taken = claims.claim_these(QUEUE, run_id, asked) if asked else []
        return marker.begun(taken or claims.claim(QUEUE, run_id, GROUP, suspects=not joining))

    with _holding(services, run_id):
        with transaction(services.engine) as connection:
            job_instances.ensure(connection, JOB, customers, Trigger.SCHEDULED)
        outcome = drain(claims, QUEUE, run_id, marker.mark, threads=CUSTOMERS_AT_ONCE, take=take)
    if marker.away:
        raise BackendUnavailable(marker.away)
    return outcome


def mark_all_of(services: Services, customer: str, run_id: str, tell: Tell) -> None:
    """Mark all documents of one customer, once no other run is at work for them; waiting too long for it is an error.

    Raises:
        BackendUnavailable: as `mark_round`.
    """
    claims, marker = services.claims, _Marker(services, run_id, tell, None)
    deadline = time.monotonic() + PATIENCE_SECONDS

    def claimed() -> list[Claim]:
        with transaction(services.engine) as connection:
            numbers = job_instances.ensure(connection, JOB, [customer], Trigger.ON_DEMAND)
        claims.make_ready(QUEUE)  # the run that holds it may be dead
        return marker.begun(claims.claim_these(QUEUE, run_id, numbers))

    with _holding(services, run_id):
        while not (batch := claimed()) and time.monotonic() < deadline:
            time.sleep(1)
        work_through(claims, QUEUE, batch, marker.mark, threads=1)
    if marker.away:
        raise BackendUnavailable(marker.away)
    if not batch:
        tell(Figures(customer, error="another run is still at work for this customer; materialize the partition later"))


@contextmanager
def _holding(services: Services, run_id: str) -> Iterator[None]:
    """Keep the leases of a run, and give back at its end what it still holds. What an interrupted run holds stays: the
    run status sensors know whether it was cancelled or its machine is being shut down."""
    claims = services.claims
    with claims.hold(run_id):
        claims.release(run_id)  # what it has taken over from a run that it repeats
        try:
            yield
        except Exception:
            claims.release(run_id)
            raise
        claims.release(run_id)


class _Marker:
    """The work of one customer, with what all customers of a run share."""

    def __init__(self, services: Services, run_id: str, tell: Tell, batch_size: int | None) -> None:
        self.away = ""
        """The message of the database that did not answer; empty while all do. The run then ends."""
        self._services = services
        self._run_id = run_id
        self._tell = tell
        self._telling = threading.Lock()
        self._batch_size = batch_size
        self._jobs: dict[int, Row[Any]] = {}
        """Those begun, by the number of their items."""

    def begun(self, batch: list[Claim]) -> list[Claim]:
        """Begin the jobs of claims, all at once."""
        numbers = [claim.item_id for claim in batch]
        try:
            with autocommit(self._services.engine) as connection:
                self._jobs |= {job.number: job for job in job_instances.begin(connection, self._run_id, numbers)}
        except BackendUnavailable as error:
            self.away = error.public
            raise
        return batch

    def mark(self, claim: Claim) -> None:
        """Mark what is pending for a customer and tell of it, then settle job and item in one transaction.

        If the run dies in between, the next one tells of the customer once more, under the same job: at least once.

        Raises:
            BackendUnavailable: a database is away.
            LeaseLost: another run has taken the customer over.
        """
        if self.away:
            raise BackendUnavailable(self.away)
        claims, engine = self._services.claims, self._services.engine
        try:
            figures = None
            job = self._jobs.pop(claim.item_id, None)
            if job is not None:
                figures = Figures(job.customer_id, job_id=job.id, again=job.again)
                _carry_out(self._services, figures, self._batch_size)
                with self._telling:
                    self._tell(figures)
            with transaction(engine) as connection:
                claims.finish(connection, QUEUE, claim)
                if figures is not None:
                    job_instances.finish(
                        connection, claim.item_id, figures.result(), error=figures.trouble, failed=figures.broken
                    )
        except BackendUnavailable as error:
            self.away = error.public
            raise


def _carry_out(services: Services, figures: Figures, batch_size: int | None) -> None:
    """Mark what is pending for one customer.

    Raises:
        BackendUnavailable: MongoDB is away.
    """
    customer = figures.customer_id
    log.info(f"Starting image auto-marker job for customer: {customer}")
    started = time.perf_counter()
    try:
        _mark(services, figures, batch_size)
    except BackendUnavailable:
        raise
    except ImgpipeError as error:
        figures.error = error.public
    except Exception as error:  # whatever is wrong with one customer's data must not stop the others
        log.error("customer failed", extra={"customer": customer}, exc_info=error)
        figures.error = f"{type(error).__name__}: {error}"[:500]
    figures.seconds = time.perf_counter() - started
    ended = "failed" if figures.broken else "completed"
    # The specification's text and level, by which operators search their logs.
    log.log(
        logging.ERROR if figures.trouble else logging.INFO,
        f"Auto-mark {ended} for customer {customer}: {figures.marked}/{figures.found} images marked",
        extra={"error": figures.trouble, **figures.result()},
    )


def _mark(services: Services, figures: Figures, batch_size: int | None) -> None:
    configs, news = ImageConfigs(services.documents), News(services.documents)
    customer = figures.customer_id
    known = configs.of(customer)
    if not known:
        if not news.any_of(customer):  # an id mistyped in a backfill or a trigger must not create a customer
            figures.note = NOBODY
            return
        configs.add_new(customer)
    elif not switched_on(customer, known):
        figures.note = OFF
        return
    clean_image = news.how_images_lack(customer)
    left, passed_over = batch_size, 0
    while left is None or left > 0:
        # As large as all that was passed over, so that few pages pass over many.
        size = PAGE_SIZE if left is None else min(PAGE_SIZE, max(left, passed_over))
        page = news.mark_page(customer, clean_image, skip=passed_over, limit=size, most=left)
        figures.found += len(page.documents)
        figures.marked += page.marked
        for document_id, reason in page.problems:
            figures.problem(document_id, reason)
        # Documents that were not marked are still the first ones found: skip them, or they block those behind.
        passed_over += len(page.documents) - page.marked
        if left is not None:
            left -= len(page.documents) - len(page.problems)
        if page.last:
            return
        if left and figures.failed >= MOST_UNMARKABLE:
            figures.error = f"{figures.trouble}; what is behind them waits until they are corrected"
            return
        # A backfill takes minutes, in which the customer may be switched off.
        if left is None and not switched_on(customer, configs.of(customer)):
            figures.note = OFF_MEANWHILE
            return
