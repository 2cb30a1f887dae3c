"""States of a verdict, and the scores from which something is doubtful. Pure functions only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum

from imgpipe_orchestration.errors import Forbidden
from imgpipe_orchestration.settings import Settings


class State(StrEnum):
    """States of a verdict."""

    WAITING = "waiting"  # not judged yet; shown to others as held where it is held, else as no verdict
    CLEAR = "clear"  # no score reaches its threshold
    FLAGGED = "flagged"  # shown, and in the review list
    HELD = "held"  # not shown, and in the review list
    APPROVED = "approved"  # by a person
    REJECTED = "rejected"  # by a person, and in the trash


class Held(Forbidden):
    """The image is held back: it has no verdict yet, or waits for a person, or a person rejected it."""


HELD = "This image is held back until it has been reviewed."
OTHERWISE = 0.5
"""Threshold of a category without one of its own."""
_THRESHOLDS: Mapping[str, float | None] = {"sexual/minors": 0.2, "adult": 0.75, "racy": 0.75, "violence": 0.75}
_IGNORED = {"spoof", "medical"}
"""Of Google's categories, those that harm nobody."""
LIKELIHOODS = {"VERY_UNLIKELY": 0.0, "UNLIKELY": 0.25, "POSSIBLE": 0.5, "LIKELY": 0.75, "VERY_LIKELY": 1.0}
"""Google's words as scores. UNKNOWN is left out: it says nothing."""


def over(settings: Settings, scores: Mapping[str, float]) -> list[str]:
    """The categories whose score reaches the threshold, the highest first."""
    own: dict[str, float | None] = json.loads(settings.moderation_thresholds or "{}")
    limits = {**_THRESHOLDS, **dict.fromkeys(_IGNORED), **own}
    found = {}
    for name, score in scores.items():
        limit = limits.get(name, OTHERWISE)
        if limit is not None and score >= limit:
            found[name] = score
    return sorted(found, key=lambda name: -found[name])
