"""Making again: variants that an older recipe made, analyses that were asked older questions.

Ordering and making are apart. A backfill orders what is outdated on a day, a focus set by hand orders one image; every
run of that day makes what was ordered, and tries again what failed. Unchanged images are never ordered: a manifest
names the recipe that made it, an analysis the version of the questions and the providers that answered.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection

from imgpipe_orchestration.media import prompts, store
from imgpipe_orchestration.media.driving import drain
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.stages import Stage, analyse_again, resized
from imgpipe_orchestration.media.steps.resize import remake
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction


def order_variants(services: Services, day: str) -> int:
    """Order the variants of a day's finished images that another recipe made; returns how many are ordered anew."""
    with transaction(services.engine) as connection:
        items = _outdated(services, connection, day, Step.RESIZE_OPTIMIZE)
        return services.claims.enqueue(connection, store.REMAKE_VARIANTS, items, again=True)


def order_analyses(services: Services, day: str) -> int:
    """Order the analyses of a day's finished images that were asked other questions, or that a configured provider has
    not answered; returns how many are ordered anew."""
    with transaction(services.engine) as connection:
        items = _outdated(services, connection, day, Step.AI_VISUAL_ANALYSIS)
        return services.claims.enqueue(connection, store.REMAKE_ANALYSIS, items, again=True)


def up_to_date(services: Services, day: str, step: Step) -> dict[str, float]:
    """How many images a day has, and of how many what `step` makes is there and current."""
    with transaction(services.engine) as connection:
        images = store.images_of_day(connection, day, step)
        outdated = {item.id for item in _outdated(services, connection, day, step)}
    done = [media for media, completed in images.items() if completed and media not in outdated]
    return {"images_of_day": len(images), "up_to_date": len(done)}


def _outdated(services: Services, connection: Connection, day: str, step: Step) -> list[Item]:
    """The finished images of a day for which `step` would make something else today."""
    if step is Step.RESIZE_OPTIMIZE:
        return store.made_by_other_recipe(connection, day, services.media_recipe.version)
    if step is Step.AI_VISUAL_ANALYSIS:
        clients = {"google_vision": services.google_vision, "openai_vision": services.openai}
        configured = [name for name, client in clients.items() if client]
        return store.analysed_otherwise(connection, day, prompts.VERSION, configured)
    return []


def make_variants(services: Services, owner: str, day: str) -> Stage:
    """Make the variants that are ordered for a day."""
    with services.claims.hold(owner):
        outcome, made = drain(services, owner, store.REMAKE_VARIANTS, remake, partition=day)
    return resized(outcome, made)


def make_analyses(services: Services, owner: str, day: str) -> Stage:
    """Make the analyses that are ordered for a day."""
    queue = store.REMAKE_ANALYSIS
    with services.claims.hold(owner):
        outcome, found = drain(services, owner, queue, partial(analyse_again, queue=queue), partition=day)
    return Stage(outcome, {"images": len(found), "failed": len(outcome.failed) + len(outcome.retried)})
