"""What a feature declares about the things that are judged; states of a verdict, and the scores that are doubtful."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection

from imgpipe_orchestration.errors import Forbidden
from imgpipe_orchestration.lifecycle.kind import Kind
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services


@dataclass(frozen=True)
class Subject:
    """One kind of things that are judged. Ids are those of its rows."""

    name: str
    kind: Kind
    """Of what it is, or is a part of, and where it goes when it is rejected."""
    table: str
    """The table that has `held`; empty for what a later step publishes, which asks `judging.admit` before."""
    content: Callable[[Services, int], bytes | str]
    """The picture or the text to judge and to review.

    Raises:
        Deleted, NotFound: it is not there.
    """
    facts: Callable[[Connection, int], tuple[int | None, str]] = lambda _, __: (None, "")
    """The user of a thing, and the SHA-256 of its bytes; empty where its row does not have that.

    Raises:
        Deleted, NotFound: it is not there.
    """
    named: Callable[[Connection, int], str] | None = None
    """The name by which the ledger has it, where that is another than `what`."""
    published: Callable[[Connection, int], int | None] = lambda _, __: None
    """The thing of `kind` that has published a part, where it has no table."""
    rejected: Callable[[Services, Connection, int], None] = lambda _, __, ___: None
    """What else a rejection changes, in its transaction."""
    approved: Callable[[Services, Connection, int], None] = lambda _, __, ___: None
    """Shows in its place what was held, when it is approved or clear."""

    def what(self, item: int) -> str:
        """The name of a thing, as the ledger and the deletions have it."""
        return f"{self.name}/{item}"


def digest_of(content: bytes | str) -> str:
    """SHA-256 of a picture or a text."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


class State(StrEnum):
    """States of a verdict."""

    WAITING = "waiting"  # not judged yet; reported as `held` if held back, otherwise as no verdict
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
GOOGLES = ("adult", "racy", "violence")
"""Of Google's categories, those whose likelihood must be known."""


def over(settings: Settings, scores: Mapping[str, float]) -> list[str]:
    """The categories whose score reaches the threshold, the highest first."""
    own: dict[str, float | None] = json.loads(settings.moderation_thresholds or "{}")
    limits = {**_THRESHOLDS, **dict.fromkeys(_IGNORED), **own}
    reached = ((name, limits.get(name, OTHERWISE)) for name in scores)
    found = [name for name, limit in reached if limit is not None and scores[name] >= limit]
    return sorted(found, key=lambda name: -scores[name])
