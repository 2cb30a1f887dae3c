"""Making outdated variants and analyses again.

A backfill orders what is outdated on a day, and a focus set by hand orders the variants of one image. Every run of that
day makes what was ordered, and retries what failed. Nothing current is ever ordered: a manifest names the recipe that
made it, and an analysis the version of its questions and the providers that answered.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection

from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.media import prompts, store
from imgpipe_orchestration.media.driving import drain
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.stages import Stage, analyse_again, resized
from imgpipe_orchestration.media.steps.resize import remake
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome

_QUEUES = {Step.RESIZE_OPTIMIZE: store.REMAKE_VARIANTS, Step.AI_VISUAL_ANALYSIS: store.REMAKE_ANALYSIS}


def order(services: Services, day: str, step: Step, *, urgent: bool = True) -> int:
    """Order what `step` makes for a day's finished images where it is outdated; returns how many are newly ordered."""
    queue = store.UNHURRIED_ANALYSIS if step is Step.AI_VISUAL_ANALYSIS and not urgent else _QUEUES[step]
    with transaction(services.engine) as connection:
        items = _outdated(services, connection, day, step)
        return services.claims.enqueue(connection, queue, items, again=True)


def up_to_date(services: Services, day: str, step: Step) -> dict[str, float]:
    """How many images a day has, and for how many the result of `step` exists and is current."""
    with transaction(services.engine) as connection:
        images = store.images_of_day(connection, day, step)
        outdated = {item.id for item in _outdated(services, connection, day, step)}
    done = [media for media, completed in images.items() if completed and media not in outdated]
    return {"images_of_day": len(images), "up_to_date": len(done)}


def _outdated(services: Services, connection: Connection, day: str, step: Step) -> list[Item]:
    """The finished images of a day whose result of `step` is outdated: made by another recipe; or an analysis with
    other questions, or without an answer of a configured provider."""
    if step is Step.RESIZE_OPTIMIZE:
        return store.made_by_other_recipe(connection, day, MEDIA.version)
    if step is Step.AI_VISUAL_ANALYSIS:
        choices = services.models.choices
        asked = {"google_vision": choices("labels"), "openai_vision": choices("describe")}
        configured = [name for name, models in asked.items() if models]
        return store.analysed_otherwise(connection, day, prompts.versions(services.prompts["describe"]), configured)
    return []


def make_variants(services: Services, owner: str, day: str, *, seconds: float | None = None) -> Stage:
    """Make the variants that were ordered for a day, or as many as there is time for."""
    outcome, made = drain(services, owner, store.REMAKE_VARIANTS, remake, partition=day, seconds=seconds)
    return resized(outcome, made)


def make_analyses(services: Services, owner: str, day: str, *, seconds: float | None = None) -> Stage:
    """As `make_variants`, for the analyses, also those that are not urgent."""
    total = Outcome()
    for queue in (store.REMAKE_ANALYSIS, store.UNHURRIED_ANALYSIS):
        work = partial(analyse_again, queue=queue)
        total.add(drain(services, owner, queue, work, partition=day, seconds=seconds)[0])
    return Stage(total)
