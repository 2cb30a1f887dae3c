"""Making again: variants that an older recipe made, analyses that were asked older questions.

Ordering and making are apart. A backfill orders what is outdated on a day, a focus set by hand orders one image; every
run of that day makes what was ordered, and tries again what failed. Unchanged images are never ordered: a manifest
names the recipe that made it, an analysis the version of the questions and the providers that answered.
"""

from __future__ import annotations

from collections.abc import Sequence

from imgpipe_orchestration.media import seeing, store
from imgpipe_orchestration.media.driving import drain
from imgpipe_orchestration.media.stages import Stage, analyse_anew, resized
from imgpipe_orchestration.media.steps.analyse import Analysis
from imgpipe_orchestration.media.steps.resize import remake
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.rows import transaction


def order_variants(backends: Services, day: str) -> int:
    """Order the variants of a day's finished images that another recipe made; returns how many are ordered anew."""
    from imgpipe_orchestration.imaging.recipe import MEDIA

    with transaction(backends.engine) as connection:
        items = store.made_by_other_recipe(connection, day, MEDIA.version)
        return backends.claims.enqueue(connection, store.REMAKE_VARIANTS, items, again=True)


def order_analyses(backends: Services, day: str) -> int:
    """Order the analyses of a day's finished images that were asked other questions, or that a configured provider has
    not answered; returns how many are ordered anew."""
    clients = {"google_vision": backends.google_vision, "openai_vision": backends.openai}
    configured: Sequence[str] = [name for name, client in clients.items() if client]
    with transaction(backends.engine) as connection:
        items = store.analysed_otherwise(connection, day, seeing.VERSION, configured)
        return backends.claims.enqueue(connection, store.REMAKE_ANALYSIS, items, again=True)


def make_variants(backends: Services, owner: str, day: str) -> Stage:
    """Make the variants that are ordered for a day."""
    with backends.claims.hold(owner):
        outcome, made = drain(
            backends, owner, store.REMAKE_VARIANTS, lambda claim: remake(backends, claim), partition=day
        )
    return resized(outcome, made)


def make_analyses(backends: Services, owner: str, day: str) -> Stage:
    """Make the analyses that are ordered for a day."""

    def work(claim: Claim) -> Analysis:
        found = analyse_anew(backends, claim)
        with backends.claims.fenced(claim) as connection:
            backends.claims.finish(connection, store.REMAKE_ANALYSIS, claim)
        return found

    with backends.claims.hold(owner):
        outcome, found = drain(backends, owner, store.REMAKE_ANALYSIS, work, partition=day)
    return Stage(outcome, {"images": len(found), "failed": len(outcome.failed) + len(outcome.retried)})
