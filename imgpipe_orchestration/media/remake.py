"""Making outdated variants and analyses again, and what the analyses would cost.

A backfill orders what is outdated on a day, and a focus set by hand orders the variants of one image. Every run of that
day makes what was ordered, and retries what failed. Nothing current is ever ordered: a manifest names the recipe that
made it, and an analysis the version of its questions and the providers that answered.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import Connection, text

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.describing import versions
from imgpipe_orchestration.media.model import Step
from imgpipe_orchestration.media.stages import RUN_SECONDS, Stage, analyse_again, drain
from imgpipe_orchestration.media.steps.resize import resize
from imgpipe_orchestration.partners.models import TaskName
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction

_QUEUES = {Step.RESIZE_OPTIMIZE: store.REMAKE_VARIANTS, Step.AI_VISUAL_ANALYSIS: store.REMAKE_ANALYSIS}


def order(services: Services, day: str, step: Step, *, urgent: bool = True) -> int:
    """Order what `step` makes for a day's finished images where it is outdated: made by another recipe; or an analysis
    with other questions, or without an answer of a configured provider. Returns how many are newly ordered."""
    queue = store.UNHURRIED_ANALYSIS if step is Step.AI_VISUAL_ANALYSIS and not urgent else _QUEUES[step]
    with transaction(services.engine) as connection:
        if step is Step.RESIZE_OPTIMIZE:
            rows = connection.execute(_OTHER_RECIPE, {"day": day, "recipe": MEDIA.version})
            items = [Item(row.id, str(row.user_id), day) for row in rows]
        else:
            choices = services.models.choices
            asked = {"google_vision": choices("labels"), "openai_vision": choices("describe")}
            configured = [name for name, models in asked.items() if models]
            items = _analysed_otherwise(connection, day, _questions(services), configured)
        return services.claims.enqueue(connection, queue, items, again=True)


def _questions(services: Services) -> str:
    """The versions of what is asked about each kind of image, as JSON. Takes milliseconds."""
    return json.dumps(versions(services.prompts["describe"]))


def _analysed_otherwise(connection: Connection, day: str, questions: str, providers: Sequence[str]) -> list[Item]:
    rows = connection.execute(_OTHERWISE, {"day": day, "versions": questions, "providers": list(providers)})
    return [Item(row.id, str(row.user_id), day) for row in rows]


_OTHER_RECIPE = text("""
    select id, user_id from live_media
    where upload_day = :day and status = 'completed' and recipe is distinct from :recipe order by id
""")
# The analysis failed, has another version of the question for its kind, or lacks an answer of one of the providers.
_OTHERWISE = text("""
    select f.id, f.user_id from live_media f join processing_checklist c on c.media_id = f.id
    left join media_ai_analysis a on a.media_id = f.id
    where f.upload_day = :day and f.status = 'completed' and (c.ai_visual_analysis = 'failed'
        or a.version is distinct from cast(:versions as jsonb) ->> f.kind or exists (
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """Outdated images of some days, the calls that they need by operation, and what one usually costs (US dollars).
    Copies of one image need one call."""

    images: int
    calls: dict[str, int]
    costs: dict[str, Decimal]

    @property
    def usd(self) -> Decimal:
        """Of the calls whose cost is known."""
        return sum((n * self.costs[name] for name, n in self.calls.items() if name in self.costs), Decimal(0))

    @property
    def unknown(self) -> int:
        """Calls of unknown cost."""
        return sum(n for name, n in self.calls.items() if name not in self.costs)

    def shown(self) -> dict[str, Any]:
        return {
            "images": self.images,
            "calls": self.calls,
            "cost_usd": round(float(self.usd), 6),
            "calls_of_unknown_cost": self.unknown,
        }


def estimate(services: Services, first: date, last: date) -> Estimate:
    """What a backfill of these days of upload would ask. Google's answers stay as they are when only our questions
    changed."""
    described, labelled = set[int](), set[int]()
    choices, questions = services.models.choices, _questions(services)
    with transaction(services.engine) as connection:
        for n in range((last - first).days + 1):
            day = (first + timedelta(days=n)).isoformat()

            def outdated(providers: list[str], day: str = day) -> set[int]:
                return {item.id for item in _analysed_otherwise(connection, day, questions, providers)}

            if choices("describe"):
                described |= outdated(["openai_vision"])
            if choices("labels"):
                labelled |= outdated(["google_vision"]) - outdated([])
        asked = {"vision": described, "embedding": described, "annotate": labelled}
        calls = {name: connection.scalar(_DIFFERENT, {"ids": list(ids)}) or 0 for name, ids in asked.items()}
        costs = spending.usual_costs(connection, "media", {name: choices(task) for name, task in _TASKS.items()})
    return Estimate(len(described | labelled), {name: n for name, n in calls.items() if n}, costs)


# A site's image is another question with another owner.
_DIFFERENT = text("""
    select count(distinct (coalesce(sha256, id::text), kind, case when data_type = 'sites' then user_id end))
    from media_files where id = any(:ids)
""")
