"""A run's five stages over its batch: which claims each takes and what it reports. No Dagster in here.

A stage finds its work in the database and gets nothing from the stage before, so each can be run alone and a
re-execution resumes. An item goes through a step only when the checklist says that the earlier steps are settled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from imgpipe_orchestration.errors import Conflict, LeaseLost, NotFound
from imgpipe_orchestration.logs import logger
from imgpipe_orchestration.media import intake, pending, store
from imgpipe_orchestration.media.driving import drain, drive, drive_step, spends
from imgpipe_orchestration.media.model import PendingStatus, Step, StepState
from imgpipe_orchestration.media.steps.analyse import Analysis, analyse
from imgpipe_orchestration.media.steps.callback import callback, report
from imgpipe_orchestration.media.steps.resize import Resized, hints, resize
from imgpipe_orchestration.media.steps.retrieve import retrieve
from imgpipe_orchestration.media.steps.urls import replace_urls, tell_of_failure
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import WORKER_DIED, Claim, Item, Queue
from imgpipe_orchestration.storage.rows import time_of, transaction
from imgpipe_orchestration.storage.work import Outcome

log = logger(__name__)

_AGAIN_AT_ONCE = 10
"""Most images that one run retries, of those that failed and also of those whose analysis failed."""

_JUST = timedelta(minutes=10)
"""A run that gives an image up marks its upload at once; if it dies in between, a later one does. Not for longer: an
operator may set the upload back to `pending`."""


@dataclass
class Stage:
    """What one stage did, for the run's metadata."""

    outcome: Outcome
    figures: dict[str, float] = field(default_factory=dict)
    sheet: list[tuple[int, bytes]] = field(default_factory=list)
    """(media id, encoded thumbnail) of each image that was made."""


def retrieve_stage(services: Services, owner: str, day: str) -> Stage:
    """Register new uploads, claim what is due of `day` and fetch the originals."""
    registered = intake.take_in(services)
    with services.claims.hold(owner):
        batch = claim_batch(services, owner, day)
        if batch:
            services.workshop.start()  # the next stages need its workers
        ready = _ready(services, batch, Step.RETRIEVE_FILE)
        outcome, got = drive_step(services, Step.RETRIEVE_FILE, ready, retrieve)
    figures = {"registered": registered, "claimed": len(batch), "megabytes": _mb(r.bytes for r in got)}
    return Stage(outcome, figures | {f"from_{kind}": n for kind, n in Counter(r.format for r in got).items()})


def claim_batch(services: Services, owner: str, day: str) -> list[Claim]:
    """Claim what is due of `day`, in addition to what a re-execution already holds. Begins a run's first stage."""
    claims = services.claims
    batch = claims.owned(store.MEDIA, owner)
    room = max(0, services.settings.media_batch_size - len(batch))
    batch += claims.claim(store.MEDIA, owner, room, partition=day, retries=_AGAIN_AT_ONCE)
    _close(services)
    _reopen(services, batch)
    return batch


def analyse_stage(services: Services, owner: str) -> Stage:
    """Analyse the batch, and heal some finished images whose analysis had failed."""
    claims = services.claims
    with claims.hold(owner):
        ready = _ready(services, claims.owned(store.MEDIA, owner), Step.AI_VISUAL_ANALYSIS)
        outcome, found = drive_step(services, Step.AI_VISUAL_ANALYSIS, ready, _analyse)
        ill = claims.owned(store.HEALING, owner)
        ill += claims.claim(store.HEALING, owner, max(0, _AGAIN_AT_ONCE - len(ill)))
        # Not by `drive_step`: until it succeeds the checklist keeps the step as failed, with the pipeline's tries.
        healing, healed = drive(services, store.HEALING, ill, partial(analyse_again, queue=store.HEALING))
    figures: dict[str, float] = {
        "answers_bought": sum(a.bought for a in found + healed),
        "answers_reused": sum(a.reused for a in found + healed),
        "healed": len(healed),
        "still_to_heal": len(healing.retried) + len(healing.failed),
    }
    failures = Counter(name for a in found for name in a.errors)
    return Stage(outcome, figures | {f"failed_{name}": n for name, n in failures.items()})


def resize_stage(services: Services, owner: str) -> Stage:
    """Make and store the variants of the batch."""
    claims = services.claims
    with claims.hold(owner):
        ready = _ready(services, claims.owned(store.MEDIA, owner), Step.RESIZE_OPTIMIZE)
        # Two more threads than workers, to fetch the next images and store the last ones while the workers render.
        threads = services.workshop.workers + 2
        outcome, made = drive_step(services, Step.RESIZE_OPTIMIZE, ready, resize, threads=threads)
    return resized(outcome, made)


def resized(outcome: Outcome, made: Sequence[Resized]) -> Stage:
    """The stage's totals (variants, bytes by format), and its contact sheet."""
    formats = sorted({name for r in made for name in r.bytes_by_format})
    figures: dict[str, float] = {
        "variants": sum(r.variants for r in made),
        "megabytes_originals": _mb(r.source_bytes for r in made),
    }
    figures |= {f"megabytes_{name}": _mb(r.bytes_by_format.get(name, 0) for r in made) for name in formats}
    return Stage(outcome, figures, [(r.media_id, r.thumbnail) for r in made])


def callback_stage(services: Services, owner: str) -> Stage:
    """Report images that have their variants to the main API."""
    claims = services.claims
    with claims.hold(owner):
        ready = _ready(services, claims.owned(store.MEDIA, owner), Step.UPDATE_CALLBACK)
        outcome, _ = drive_step(services, Step.UPDATE_CALLBACK, ready, callback)
    return Stage(outcome)


def urls_stage(services: Services, owner: str) -> Stage:
    """Replace the temp URLs of images that our workers or others reported, report failures to a foreign main API, and
    release what was not begun."""
    claims = services.claims
    try:
        with claims.hold(owner):
            outcome, changed = drain(services, owner, store.URLS, replace_urls)
            told, _ = drain(services, owner, store.CLEANUPS, tell_of_failure)
    finally:
        claims.release(owner)
    return Stage(outcome, {"places_changed": sum(changed), "failures_told": len(told.done)})


# --- one item --------------------------------------------------------------------------------------------------------


def _analyse(services: Services, claim: Claim) -> Analysis:
    """Analyse an image. A provider's failure does not stop it: it is recorded in the checklist and healed later."""
    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
    found = analyse(services, media)
    error = found.error()
    with services.claims.fenced(claim) as connection:
        store.save_analysis(connection, media.id, found.values)
        if error is None:
            store.step_done(connection, claim, Step.AI_VISUAL_ANALYSIS)
        else:
            store.step_failed(connection, claim, Step.AI_VISUAL_ANALYSIS, final=True, counts=spends(error))
        services.claims.progress(connection, claim)
    return found


def analyse_again(services: Services, claim: Claim, *, queue: Queue) -> Analysis:
    """Analyse a finished image again. One whose analysis had failed is healed when no provider fails any more, and is
    reported again with its analysis. If it now shows the subject elsewhere, the crops are ordered anew.

    Raises:
        Retryable, Permanent: a provider still fails; the answers of the others are stored.
    """
    with transaction(services.engine) as connection:
        media = store.media_file(connection, claim.item_id)
        ill = store.checklists(connection, [media.id])[media.id][Step.AI_VISUAL_ANALYSIS] is StepState.FAILED
    found = analyse(services, media)
    with services.claims.fenced(claim) as connection:
        known = hints(media, store.analysis(connection, media.id))
        store.save_analysis(connection, media.id, found.values)
        if known.manual is None and hints(media, store.analysis(connection, media.id)) != known:
            item = Item(media.id, str(media.user_id), media.upload_day.isoformat())
            services.claims.enqueue(connection, store.REMAKE_VARIANTS, [item], again=True)
    error = found.error()
    if error is not None:
        raise error
    if ill:
        try:
            report(services, media.id)
        except (Conflict, NotFound) as refused:
            log.info("no second report wanted", extra={"media_id": media.id, "error": refused.public})
    with services.claims.fenced(claim) as connection:
        if ill:
            store.step_done(connection, claim, Step.AI_VISUAL_ANALYSIS)
        services.claims.finish(connection, queue, claim)
    return found


# --- the batch -------------------------------------------------------------------------------------------------------


def _ready(services: Services, batch: Sequence[Claim], step: Step) -> list[Claim]:
    """The claims for which `step` is pending and all earlier steps are settled."""
    with transaction(services.engine) as connection:
        lists = store.checklists(connection, [claim.item_id for claim in batch])
    steps = list(Step)
    earlier = steps[: steps.index(step)]

    def due(states: dict[Step, StepState]) -> bool:
        return states[step] is StepState.PENDING and all(_settled(s, states[s]) for s in earlier)

    return [claim for claim in batch if claim.item_id in lists and due(lists[claim.item_id])]


def _settled(step: Step, state: StepState) -> bool:
    """Whether later steps may be done: a step is completed, or it is the analysis and failed."""
    return state is StepState.COMPLETED or (step is Step.AI_VISUAL_ANALYSIS and state is StepState.FAILED)


def _close(services: Services) -> None:
    """Mark uploads as failed whose images were just given up because their workers died, which could not do it."""
    letters = [letter for letter in services.claims.failures(store.MEDIA) if letter.error_code == WORKER_DIED]
    if not letters:
        return
    with transaction(services.engine) as connection:
        since = time_of(connection) - _JUST
        dead = [letter.item_id for letter in letters if letter.failed_at > since]
        ids = store.pending_ids(connection, dead)
    if ids:
        others = [status for status in PendingStatus if status is not PendingStatus.PENDING]
        with transaction(services.pending_engine) as connection:
            pending.mark(connection, ids, PendingStatus.FAILED, unless=others)


def _reopen(services: Services, batch: Sequence[Claim]) -> None:
    """Mark failed uploads whose items were requeued as pending, except those cleaned up since they were claimed."""
    with transaction(services.engine) as connection:
        ids = store.pending_ids(connection, [claim.item_id for claim in batch])
    with transaction(services.pending_engine) as connection:
        if not pending.failed(connection, ids):
            return
    others = [status for status in PendingStatus if status is not PendingStatus.FAILED]
    for claim in batch:
        with (
            suppress(LeaseLost),
            services.claims.fenced(claim) as connection,
            pending.joined(services, connection) as where,
        ):
            pending.mark(where, store.pending_ids(connection, [claim.item_id]), PendingStatus.PENDING, unless=others)


def _mb(sizes: Iterable[int]) -> float:
    return round(sum(sizes) / 1e6, 2)
