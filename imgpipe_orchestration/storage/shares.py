"""Places for parallel work, of which no tenant has all."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Shares:
    """A semaphore with a limit for each tenant, so that one whose work takes long leaves places to others.

    Args:
        places: of all tenants together.
        each: of one tenant; all but one place by default.
    """

    def __init__(self, places: int, each: int | None = None) -> None:
        self._places = places
        self.each = max(1, places - 1) if each is None else each
        self._taken: Counter[str] = Counter()
        self._waiting: Counter[str] = Counter()
        self._changed = threading.Condition()

    @contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """Wait for a place and hold it."""
        with self._changed:
            self._waiting[tenant] += 1
            try:
                self._changed.wait_for(lambda: self._may(tenant) and self._taken.total() < self._places)
            finally:
                self._waiting[tenant] -= 1
            self._taken[tenant] += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken[tenant] -= 1
                self._changed.notify_all()

    def crowded(self, tenant: str) -> bool:
        """Whether another tenant waits for a place because all are taken."""
        with self._changed:
            return any(number and other != tenant and self._may(other) for other, number in self._waiting.items())

    def _may(self, tenant: str) -> bool:
        return self._taken[tenant] < self.each
