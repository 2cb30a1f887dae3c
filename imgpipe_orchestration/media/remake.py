"""Making again what an older recipe or an older question made: the work of a backfill over a day of uploads.

Unchanged images are skipped: a variant's manifest names the recipe that made it, an analysis the version of the
questions and the providers that answered.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from imgpipe_orchestration.media import seeing, store
from imgpipe_orchestration.media.stages import Result, Stage, drain, resized
from imgpipe_orchestration.media.steps.analyse import Analysis, analyse
from imgpipe_orchestration.media.steps.resize import remake
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome


def made_on_request(backends: Services, owner: str, day: str) -> Stage:
    """Make the variants anew that somebody asked for: a focus set by hand, a requeued failure."""
    with backends.claims.hold(owner):
        work = lambda claim: remake(backends, claim)  # noqa: E731 - the one step of a drain
        return resized(*drain(backends, owner, store.REMAKE_VARIANTS, work, partition=day))


def resize_again(backends: Services, owner: str, day: str) -> Stage:
    """Make the variants of a day's images anew where another recipe made them."""
    from imgpipe_orchestration.imaging.recipe import MEDIA

    outcome, made = _again(
        backends,
        owner,
        store.REMAKE_VARIANTS,
        day,
        lambda connection: store.made_by_other_recipe(connection, day, MEDIA.version),
        lambda claim: remake(backends, claim),
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
        day,
        lambda connection: store.analysed_otherwise(connection, day, seeing.VERSION, wanted),
        work,
    )
    return {"analysed_again": len(found), "analysed_again_failed": len(outcome.failed) + len(outcome.retried)}


def _providers(backends: Services) -> dict[str, object | None]:
    return {"google_vision": backends.google_vision, "openai_vision": backends.openai}


def _again(
    backends: Services,
    owner: str,
    queue: Queue,
    day: str,
    find: Callable[[Connection], list[Item]],
    work: Callable[[Claim], Result],
) -> tuple[Outcome, list[Result]]:
    """Enqueue what is found and work through it until none is left."""
    with transaction(backends.engine) as connection:
        items = find(connection)
        backends.claims.enqueue(connection, queue, items, again=True)
    with backends.claims.hold(owner):
        return drain(backends, owner, queue, work, partition=day)


def _finished(backends: Services, day: str) -> int:
    with transaction(backends.engine) as connection:
        return store.finished_of(connection, day)
