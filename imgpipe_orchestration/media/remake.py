"""Making outdated variants and analyses again, and what the analyses would cost.

A backfill orders what is outdated on a day, and a focus set by hand orders the variants of one image. Every run of that
day makes what was ordered, and retries what failed. Nothing current is ever ordered: a manifest names the recipe that
made it, and an analysis the version of its questions and the providers that answered.
"""

import json
from collections import Counter
from datetime import date
from functools import partial
from typing import Any

from sqlalchemy import Connection, CursorResult, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import versions
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.stages import RUN_SECONDS, Stage, analyse_again, drain
from imgpipe_orchestration.media.steps.resize import resize
from imgpipe_orchestration.partners.models import TaskName
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services


def order(services: Services, day: str, step: Step, *, urgent: bool = True) -> int:
    """Order what `step` makes for a day's finished images where it is outdated: made by another recipe; or an analysis
    with other questions, or without an answer of a configured provider. Returns how many are newly ordered."""
    with transaction(services.engine) as connection:
        if step is Step.RESIZE_OPTIMIZE:
            queue = store.REMAKE_VARIANTS
            rows = connection.execute(_OTHER_RECIPE, {"day": day, "recipe": MEDIA.version})
        else:
            queue = store.REMAKE_ANALYSIS if urgent else store.UNHURRIED_ANALYSIS
            rows = _analysed_otherwise(services, connection, day, day)
        items = [Item(row.id, str(row.user_id), day) for row in rows]
        return services.claims.enqueue(connection, queue, items, again=True)


def _analysed_otherwise(services: Services, connection: Connection, first: str, last: str) -> CursorResult[Any]:
    """Images whose analysis is outdated, whether its question is (`changed`), and who answered (`answered_by`)."""
    asked: dict[str, TaskName] = {"google_vision": "labels", "openai_vision": "describe", "openai_embedding": "embed"}
    providers = [name for name, task in asked.items() if services.models.choices(task)]
    questions = json.dumps(versions(services.prompts["describe"]))
    values = {"first": first, "last": last, "versions": questions, "providers": providers}
    return connection.execute(_OTHERWISE, values)


_OTHER_RECIPE = text("""
    select id, user_id from live_media
    where upload_day = :day and status = 'completed' and recipe is distinct from :recipe order by id
""")
# The analysis failed, has another version of the question for its kind, or lacks an answer of one of the providers.
_OTHERWISE = text("""
    select f.id, f.user_id, v.changed, a.answered_by from live_media f join processing_checklist c on c.media_id = f.id
    left join media_ai_analysis a on a.media_id = f.id
    cross join lateral (select a.version is distinct from cast(:versions as jsonb) ->> f.kind as changed) v
    where f.upload_day between :first and :last and f.status = 'completed' and (c.ai_visual_analysis = 'failed'
        or v.changed or exists (
            select from unnest(cast(:providers as text[])) p where a.providers ->> p is distinct from 'ok'))
    order by f.id
""")


def make_variants(services: Services, owner: str, day: str, *, seconds: float = RUN_SECONDS) -> Stage:
    """Make the variants that were ordered for a day, or as many as there is time for."""
    again = partial(resize, again=True)
    return drain(services, owner, store.REMAKE_VARIANTS, again, partition=day, seconds=seconds)


def make_analyses(services: Services, owner: str, day: str, *, seconds: float = RUN_SECONDS) -> Stage:
    """As `make_variants`, for the analyses, also those that are not urgent."""
    total = Stage()
    for queue in (store.REMAKE_ANALYSIS, store.UNHURRIED_ANALYSIS):
        work = partial(analyse_again, queue=queue)
        total.join(drain(services, owner, queue, work, partition=day, seconds=seconds))
    return total


# --- what analysing outdated images anew would cost ------------------------------------------------------------------


_TASKS: dict[str, TaskName] = {"vision": "describe", "embedding": "embed", "annotate": "labels"}
"""Whose models answer the calls of an operation."""


def estimate(services: Services, first: date, last: date) -> dict[str, Any]:
    """What a backfill of these days of upload would ask, at most: copies of an image need one call, and an answer that
    was bought before needs none. Google's answers stay as they are when only our questions changed."""
    models = {name: chosen for name, task in _TASKS.items() if (chosen := services.models.choices(task))}
    images, calls = 0, Counter[str]()
    with transaction(services.engine) as connection:
        connection.execute(text("set local statement_timeout = 0"))  # years of images
        for row in _analysed_otherwise(services, connection, first.isoformat(), last.isoformat()):
            by = row.answered_by or {}
            asked = {name for name, (one, *_) in models.items() if by.get(_TASKS[name]) != str(one)}
            asked |= {"vision"} if row.changed else set()
            asked |= {"embedding"} if asked else set()  # whose words are the others' answers
            calls.update(asked & models.keys())
            images += 1
        costs = spending.usual_costs(connection, "media", models)
    return {
        "images": images,
        "calls": dict(calls),
        "cost_usd": round(float(sum(number * costs.get(name, 0) for name, number in calls.items())), 6),
        "calls_of_unknown_cost": sum(number for name, number in calls.items() if name not in costs),
    }
