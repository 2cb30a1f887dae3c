"""The words of the queues: states, items, claims, and what a feature says about its queue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection


class State(StrEnum):
    """Where an item stands in its queue."""

    WAITING = "waiting"  # may be claimed once due_at has passed
    CLAIMED = "claimed"  # a worker holds it until due_at
    DONE = "done"  # finished; the row stays for the history until retention takes it
    FAILED = "failed"  # attempts spent or hopeless: a dead letter, visible, can be requeued
    IGNORED = "ignored"  # a dead letter that somebody decided to leave, or withdrawn


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
    """`traceparent` of what put the item in; empty for items older than traces."""


Mirror = Callable[[Connection, Sequence[int], State, str | None], None]
"""Keeps a feature's own rows equal to their items: called with the connection of the very transaction that changes
the state, the item ids, the new state (WAITING with an error means "will be tried again") and the error or None.

It is called for what outlives a run: finish, failure, requeue. It is not called when an item is claimed or given back,
for a run that died could not take back what it had said; nor for ignore, which leaves a failure what it is."""


def _no_mirror(_: Connection, __: Sequence[int], ___: State, ____: str | None) -> None:
    """For queues whose items have no row elsewhere."""


@dataclass(frozen=True)
class Queue:
    """A queue by name, how often an item is tried, and how the feature's rows follow."""

    name: str
    max_attempts: int = 3
    mirror: Mirror = _no_mirror


@dataclass(frozen=True, slots=True)
class Item:
    """Something to enqueue: `tenant` is who waits their turn, `partition` the Dagster partition it belongs to."""

    id: int
    tenant: str = ""
    partition: str = ""
    trace: str = ""
    """`traceparent` it belongs to; empty: the one that whoever enqueues is in, or a new one."""
