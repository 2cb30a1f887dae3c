"""Whether a run is due; and the run, which marks pending documents, a few customers at a time. One customer's error
doesn't stop the others. The caller gets each customer's figures as soon as they are known.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from imgpipe_orchestration.auto_marker.model import (
    JOB,
    NO_FIGURES,
    Figures,
    customer_of,
    has_partition,
    partition_key,
    switched_on,
)
from imgpipe_orchestration.auto_marker.store import ImageConfigs, News
from imgpipe_orchestration.errors import BackendUnavailable, ImgpipeError
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage import heartbeats, job_instances
from imgpipe_orchestration.storage.job_instances import JobInstance, JobResult, Trigger
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import bound, logger

log = logger(__name__)

CUSTOMERS_AT_ONCE = 4
GROUP = 16
"""Customers whose jobs are begun in one transaction; up to twice as many are open when a run dies."""
ASKED_AT_ONCE = 1000
"""Most jobs that wait for a run and are taken when it begins."""
_LOOK = 2.0
"""Seconds between looks for customers who ask while a run is at work."""

PAGE_SIZE = 1000
"""Most documents read and written at a time. Bounds the memory of a backfill, and how many documents a crash leaves
marked but not counted."""


OFF = (
    "automatic marking is off for this customer; it is switched on under Auto-marker, or by PUT "
    "/api/customers/{customer_id}/image-config"
)
OFF_MEANWHILE = "automatic marking was switched off meanwhile; what was marked before stays so"
NOBODY = "there is no document of this customer"


def due(services: Services) -> bool | str:
    """True if somebody asked, or the next round is due and somebody has pending images; else why no run is wanted. Of a
    round with nothing to do the heartbeat is written here, of others by their run: what a preview of the sensor in
    Dagster's UI asks for is never run.

    Jobs that somebody asked for and that cannot start because MongoDB is away get that as the reason they wait.

    Raises:
        BackendUnavailable: PostgreSQL is away.
    """
    asked = job_instances.first_due(services.engine, JOB)
    try:
        if not services.settings.mongodb_url:
            raise BackendUnavailable("No MongoDB is configured (MONGODB_URL): there is nothing to mark.")
        if asked is not None:
            services.documents.ping()
            return True
        if not is_time(services):
            return "nothing was asked for and the next round is not due"
        opted_out = ImageConfigs(services.documents).opted_out()
        if News(services.documents).any_to_mark(opted_out=opted_out):
            return True
    except BackendUnavailable as away:
        if asked is not None:
            job_instances.keep_waiting(services.engine, JOB, away.public)
        return away.public
    heartbeats.beat(services.engine, JOB)
    return "no customer has pending images"


def is_time(services: Services) -> bool:
    """Whether the next round over every customer with pending images is due."""
    last = heartbeats.last(services.engine, JOB)
    # Below 0 the clock was set back since.
    return last is None or not 0 <= last.age < services.settings.job_interval_minutes * 60


def begin_round(services: Services) -> tuple[list[str], dict[str, int]]:
    """The customers with pending documents; and the numbers of documents whose customer_id is no usable text, by a
    description of that id. This is the round that was due."""
    opted_out = ImageConfigs(services.documents).opted_out()
    pending = News(services.documents).pending_by_customer(opted_out=opted_out)
    usable = sorted(filter(has_partition, pending))
    nobody = {
        (whose[0] if isinstance(whose, tuple) else repr(whose))[:80]: count
        for whose, count in pending.items()
        if not has_partition(whose)
    }
    heartbeats.beat(services.engine, JOB)
    return usable, nobody


def out_of_step(services: Services, known: Sequence[str]) -> tuple[list[str], list[str]]:
    """The partition keys to add to and to remove from the `known` ones: customers who have an `image_config`, and those
    who have neither an `image_config` nor a document."""
    configs, news = ImageConfigs(services.documents), News(services.documents)
    configured = {partition_key(customer) for customer in configs.customers() if has_partition(customer)}
    gone = [key for key in known if key not in configured and not news.any_of(customer_of(key))]
    return sorted(configured - set(known)), gone


def carry_out(
    services: Services, customers: Sequence[str], run_id: str, *, batch_size: int | None, joining: bool = True
) -> Iterator[Figures]:
    """Mark the documents of some customers; yields each customer's figures when they are known.

    Args:
        run_id: id of the run, which owns the job instances.
        batch_size: most documents of each customer; None for all.
        joining: also of those who have asked, or ask while the run is at work: nobody waits for another's many
            documents.

    Raises:
        BackendUnavailable: a database went away. Marked documents stay marked; unfinished jobs wait again.
    """
    with (
        services.claims.hold(run_id),
        _giving_back(services, run_id),
        ThreadPoolExecutor(CUSTOMERS_AT_ONCE, thread_name_prefix="auto-marker") as pool,
    ):
        started = job_instances.start(services.claims, JOB, run_id, ASKED_AT_ONCE) if joining else []
        # Each customer once, those who asked first.
        waiting = list(dict.fromkeys([*(instance.customer_id for instance in started), *customers]))
        running: dict[Future[Figures], JobInstance] = {}
        trigger = Trigger.ON_DEMAND if batch_size is None else Trigger.SCHEDULED
        looked = time.monotonic()
        try:
            while waiting or running:
                if joining and time.monotonic() - looked >= _LOOK:
                    late = job_instances.start(services.claims, JOB, run_id, GROUP)
                    started += late
                    waiting = list(dict.fromkeys([*(instance.customer_id for instance in late), *waiting]))
                    looked = time.monotonic()
                while waiting and len(running) < GROUP:
                    group, waiting = waiting[:GROUP], waiting[GROUP:]
                    begun = [  # `begin` takes what this run has begun already for interrupted ones
                        next((one for one in started if one.id == begun.id), begun)
                        for begun in job_instances.begin(services.claims, JOB, group, run_id, trigger=trigger)
                    ]
                    running |= {pool.submit(_carry_out, services, one, batch_size): one for one in begun}
                    for customer in set(group) - {one.customer_id for one in begun}:
                        yield Figures(customer, note="another run is at work for this customer")
                over = wait(running, _LOOK, FIRST_COMPLETED).done
                if any(future.exception() for future in over):
                    # The run is about to end with that error, and must report what the others mark.
                    pool.shutdown(wait=True, cancel_futures=True)
                    over = {future for future in running if not future.cancelled()}
                done = [(running.pop(future), future) for future in over]
                yield from _settle(services, [(one, f.result()) for one, f in done if f.exception() is None])
                for _, future in done:
                    future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextmanager
def _giving_back(services: Services, run_id: str) -> Iterator[None]:
    """On an error, give back the run's claims; if that fails too, their leases run out.

    Not on interrupts: the run status sensors know whether the run was cancelled or shut down.
    """
    try:
        yield
    except Exception as error:
        try:
            services.claims.release(run_id, died=not isinstance(error, BackendUnavailable))
        except BackendUnavailable as away:
            log.warning("instances not given back", extra={"run_id": run_id, "error": away.detail})
        raise


def _carry_out(services: Services, instance: JobInstance, batch_size: int | None) -> Figures:
    """Mark what is pending for one customer.

    Raises:
        BackendUnavailable: MongoDB is away.
    """
    customer = instance.customer_id
    figures = Figures(customer, job_id=instance.id, again=instance.again)
    with (
        bound(run=instance.run_id, queue=JOB, item=str(instance.id), tenant=customer),
        tracing.resumed(tracing.parse(instance.claim.trace if instance.claim else "")),
        tracing.span(JOB, item=str(instance.id)),
    ):
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
    return figures


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
        size = PAGE_SIZE if left is None else min(PAGE_SIZE, left)
        page = news.mark_page(customer, clean_image, skip=passed_over, limit=size, oldest_first=left is not None)
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
        # A backfill takes minutes, in which the customer may be switched off.
        if left is None and not switched_on(customer, configs.of(customer)):
            figures.note = OFF_MEANWHILE
            return


def _settle(services: Services, done: Sequence[tuple[JobInstance, Figures]]) -> Iterator[Figures]:
    """Yield the figures of finished customers, then write them. If the run dies in between, the next one reports the
    customers once more, under the same job: at least once, never not at all."""
    yield from (figures for _, figures in done)
    endings = [
        JobResult(one, {**NO_FIGURES, **figures.result()}, figures.trouble, figures.broken) for one, figures in done
    ]
    lost = job_instances.finish(services.claims, endings) if endings else set()
    for one, figures in done:
        if one.id in lost:
            log.warning("no longer this run's", extra={"customer": figures.customer_id, "run": one.run_id})
