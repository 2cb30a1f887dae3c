"""What analysing outdated images anew would cost."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from imgpipe_orchestration.billing import spending
from imgpipe_orchestration.media import prompts, store
from imgpipe_orchestration.partners.models import TaskName
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.storage.rows import transaction

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
    choices, versions = services.models.choices, prompts.versions(services.prompts["describe"])
    with transaction(services.engine) as connection:
        for n in range((last - first).days + 1):
            day = (first + timedelta(days=n)).isoformat()

            def outdated(providers: list[str], day: str = day) -> set[int]:
                return {item.id for item in store.analysed_otherwise(connection, day, versions, providers)}

            if choices("describe"):
                described |= outdated(["openai_vision"])
            if choices("labels"):
                labelled |= outdated(["google_vision"]) - outdated([])
        asked = {"vision": described, "embedding": described, "annotate": labelled}
        calls = {name: store.different(connection, ids) for name, ids in asked.items()}
        costs = spending.usual_costs(connection, "media", {name: choices(task) for name, task in _TASKS.items()})
    return Estimate(len(described | labelled), {name: n for name, n in calls.items() if n}, costs)
