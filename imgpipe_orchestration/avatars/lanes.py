"""Limits of parallel work in one run: a lane for each provider, of which no task has all; and the worker processes.

More people are in progress than any lane admits, so that all lanes stay busy: while pictures are drawn, prompts are
written and grids are cut.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

from imgpipe_orchestration.errors import LeaseLost
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Claim
from imgpipe_orchestration.storage.work import Shares
from imgpipe_orchestration.wiring.services import Services

PARALLEL_IMAGES = 5
"""Pictures that one run has drawn at once."""


@dataclass(frozen=True)
class Lanes:
    """Places in each lane; hold one around each call."""

    flowise: Shares
    images: Shares
    people: int
    """How many people are worked on at once."""
    interrupted: threading.Event = field(default_factory=threading.Event)
    """Set when the run is stopped: nothing more is bought then."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        flowise, images, cores = settings.multithread_flowise, PARALLEL_IMAGES, os.cpu_count() or 1
        return cls(Shares(flowise), Shares(images), people=flowise + images + cores)

    @property
    def share(self) -> int:
        """How many people of one task are worked on at once: a task whose pictures are slow leaves room to others."""
        return max(1, self.people - 3)


@contextmanager
def turn(lanes: Lanes, lane: Shares, services: Services, claim: Claim) -> Iterator[Callable[[], None]]:
    """Wait for a place in a lane and hold it. Yields a function that gives the place back before the end of the block.

    Raises:
        LeaseLost: the item was cancelled or taken over while it waited, or the run is stopped: nothing more is bought.
    """
    with ExitStack() as place:
        # The queue of tasks has no tenants: there each task is an item.
        place.enter_context(lane.place(claim.tenant or f"task_{claim.item_id}"))
        if lanes.interrupted.is_set():
            raise LeaseLost("The run is being stopped.")
        with services.claims.fenced(claim):
            pass
        yield place.close
