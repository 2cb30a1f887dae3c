"""Making again what an older recipe or an older question made: the work of a backfill over a day of uploads.

Unchanged images are skipped: a variant's manifest names the recipe that made it, an analysis the version of the
questions and the providers that answered.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from imgpipe_orchestration.media import seeing, store
from imgpipe_orchestration.media.stages import Result, Stage, drive, resized
from imgpipe_orchestration.media.steps.analyse import Analysis, analyse
from imgpipe_orchestration.media.steps.resize import remake
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome

BATCH = 100


def resize_again(backends: Services, owner: str, day: str) -> Stage:
    """Make the variants of a day's images anew where another recipe made them."""
    from imgpipe_orchestration.imaging.recipe import MEDIA

    outcome, made = _again(
        backends,
        owner,
        store.REMAKE_VARIANTS,
        lambda connection: store.made_by_other_recipe(connection, day, MEDIA.version),
        lambda claim: remake(backends, claim),
        threads=backends.workshop.workers + 2,
    )
    stage = resized(outcome, made)
    stage.figures["unchanged"] = _finished(backends, day) - len(made)
    return stage


def analyse_again(backends: Services, owner: str, day: str) -> dict[str, float]:
    """Ask again for a day's images where the questions changed or a provider had not answered."""

    def work(claim: Claim) -> Analysis:
        with transaction(backends.engine) as connection:
            media = store.media_file(connection, claim.item_id)
        found = analyse(backends, media)
        with backends.claims.fenced(claim) as connection:
            store.save_analysis(connection, media.id, found.values)
            backends.claims.finish(connection, store.REMAKE_ANALYSIS, claim)
        return found

    wanted = [name for name, client in _providers(backends).items() if client]
    outcome, found = _again(
        backends,
        owner,
        store.REMAKE_ANALYSIS,
        lambda connection: store.analysed_otherwise(connection, day, seeing.VERSION, wanted),
        work,
        threads=8,
    )
    return {"analysed_again": len(found), "analysed_again_failed": len(outcome.failed) + len(outcome.retried)}


def _providers(backends: Services) -> dict[str, object | None]:
    return {"google_vision": backends.google_vision, "openai_vision": backends.openai}


def _again(
    backends: Services,
    owner: str,
    queue: Queue,
    find: Callable[[Connection], list[Item]],
    work: Callable[[Claim], Result],
    *,
    threads: int,
) -> tuple[Outcome, list[Result]]:
    """Enqueue what is found and work through it until none is left."""
    claims = backends.claims
    with transaction(backends.engine) as connection:
        items = find(connection)
        claims.enqueue(connection, queue, items, again=True)
    total, results = Outcome(), list[Result]()
    partition = items[0].partition if items else ""
    with claims.hold(owner):
        while batch := claims.owned(queue, owner) + claims.claim(queue, owner, BATCH, partition=partition):
            outcome, part = drive(backends, queue, None, batch, work, threads=threads, budget=None)
            total.add(outcome)
            results += part
            if not outcome.done:
                break
    return total, results


def _finished(backends: Services, day: str) -> int:
    with transaction(backends.engine) as connection:
        return store.finished_of(connection, day)
