"""The types of the queues: states, items, claims, a feature's description of its queue; and how long items pause."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection


class State(StrEnum):
    """The state of an item."""

    WAITING = "waiting"  # may be claimed once due_at has passed
    CLAIMED = "claimed"  # a worker holds it until due_at
    DONE = "done"  # finished; retention removes the row later
    FAILED = "failed"  # a dead letter: attempts spent, or hopeless; can be requeued
    IGNORED = "ignored"  # a dead letter that somebody dismissed, or, with the error code WITHDRAWN, a withdrawn item


BACKOFF_SECONDS = 5.0
"""Pause after the first failure; each further one doubles it."""
BACKOFF_LIMIT_SECONDS = 600.0
PAUSE_SECONDS = 15.0
"""Pause when a backend, and not the item, was at fault."""
PAUSE_LIMIT_SECONDS = 86400.0
"""Longest pause, whatever a partner's Retry-After says."""

WITHDRAWN = "withdrawn"
"""Error code of an item that was taken out of its queue because nobody wants it any more."""


class Known(NamedTuple):
    """What a queue knows about an item; empty if the item is not in it."""

    state: State | None = None
    error_code: str | None = None
    trace: str = ""
    """The `traceparent` of what enqueued it."""

    @property
    def dismissed(self) -> bool:
        """Whether it is a dead letter that somebody ignores."""
        return self.state is State.IGNORED and self.error_code != WITHDRAWN


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on one item. (owner, attempt) fences every write made under it."""

    queue: str
    item_id: int
    owner: str
    attempt: int
    failures: int
    losses: int
    tenant: str
    partition: str
    trace: str = ""
    """`traceparent` of what enqueued the item; empty for items older than traces."""
    turn: int = 0
    """Its place among the items of its partition and lane."""


Mirror = Callable[[Connection, Sequence[int], State, str | None], None]
"""Keeps a feature's own rows consistent with their items. Called in the transaction that changes the state, with its
connection, the item ids, the new state (WAITING with an error means "will be tried again") and the error or None.

It is called at finish, failure and requeue. It is not called when an item is claimed or given back, because a run that
dies could not undo that; nor for ignore, where the feature's row stays failed."""


@dataclass(frozen=True)
class Queue:
    """A queue: its name, how often an item is tried, and how the feature's rows follow."""

    name: str
    max_attempts: int = 3
    mirror: Mirror = lambda *_: None
    """Does nothing for queues whose items have no rows elsewhere."""
    away_attempts: int = 0
    """How often an item is tried while a partner is away or asks to slow down, for which nobody charges, where that is
    oftener. Failures of all kinds are counted together."""


@dataclass(frozen=True, slots=True)
class Item:
    """An item to enqueue: tenants take turns; `partition` is the Dagster partition it belongs to."""

    id: int
    tenant: str = ""
    partition: str = ""
    trace: str = ""
    """`traceparent` it belongs to; empty for the current one, or a new one."""


def backoff(failures: int) -> float:
    """Seconds to wait after the (failures + 1)-th failure: exponential, capped, with half of it jitter."""
    full = min(BACKOFF_SECONDS * 2.0 ** min(failures, 30), BACKOFF_LIMIT_SECONDS)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - jitter needs no cryptography


def asked_for(retry_after: float | None) -> float:
    """The wait that a partner asked for, bounded: some send dates in the past or centuries ahead. 0 for none."""
    if retry_after is None or math.isnan(retry_after):
        return 0.0
    return min(max(retry_after, 0.0), PAUSE_LIMIT_SECONDS)
