"""Limits on parallel work in one run: a semaphore per provider, and one worker process per core.

More people are in progress than any lane admits, so that all lanes stay busy: while pictures are drawn, prompts are
written and grids are cut.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Self

from imgpipe_orchestration.errors import LeaseLost
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Claim


@dataclass(frozen=True)
class Lanes:
    """Semaphores, each to be held around one call."""

    flowise: threading.Semaphore
    images: threading.Semaphore
    people: int
    """How many people are worked on at once."""
    interrupted: threading.Event = field(default_factory=threading.Event)
    """Set when the run is stopped: nothing more is bought then."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        flowise, images, cores = settings.multithread_flowise, settings.avatar_parallel_images, os.cpu_count() or 1
        return cls(
            threading.Semaphore(flowise),
            threading.Semaphore(images),
            people=flowise + images + cores,
        )


@contextmanager
def turn(lanes: Lanes, lane: threading.Semaphore, services: Services, claim: Claim) -> Iterator[Callable[[], None]]:
    """Wait for a place in a lane and hold it. Yields a function that gives the place back before the end of the block.

    Raises:
        LeaseLost: the item was cancelled or taken over while it waited, or the run is stopped: nothing more is bought.
    """
    with ExitStack() as place:
        place.enter_context(lane)
        if lanes.interrupted.is_set():
            raise LeaseLost("The run is being stopped.")
        with services.claims.fenced(claim):
            pass
        yield place.close
