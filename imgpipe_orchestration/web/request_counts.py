"""Counting a gateway's requests, for its metrics."""

from collections.abc import Callable
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import Scope

Item = TypeVar("Item")

BATCH = 100
"""Items of a batch: counting so many requests takes 0.2 ms."""


class Batches(Generic[Item]):
    """Collects items and hands them over BATCH at a time.

    Between two requests of a busy server the processor's caches are full of other things: to count one request there
    takes five times as long as in a batch. Not thread-safe: it belongs to one event loop.

    Args:
        work: what is done with a batch.
    """

    def __init__(self, work: Callable[[list[Item]], None]) -> None:
        self._items: list[Item] = []
        self._work = work

    def add(self, item: Item) -> None:
        """Collect an item."""
        self._items.append(item)
        if len(self._items) >= BATCH:
            self.finish()

    def finish(self) -> None:
        """Hand over what was collected so far."""
        items, self._items = self._items, []
        self._work(items)


BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Seconds, from an image that is cached in memory to an upload over a slow line."""


class RequestCounts:
    """How many requests there were and how long they took, by route (never by path: ids would make a series each)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter(
            "imgpipe_http_requests", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "imgpipe_http_request_seconds",
            "From the request's head to the end of the answer.",
            ("route",),
            buckets=BUCKETS,
            registry=registry,
        )
        self._kept: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._noted = Batches(self._add)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """A request was answered. Called in the event loop."""
        self._noted.add((scope["method"], getattr(scope.get("route"), "path", "other"), status, seconds))

    def finish(self) -> None:
        """Count what was noted so far."""
        self._noted.finish()

    def _add(self, noted: list[tuple[str, str, int, float]]) -> None:
        for method, route, status, seconds in noted:
            key = (method if method in _METHODS else "other", route, status)
            if key not in self._kept:  # because `labels` takes longer than counting
                self._kept[key] = (self._count.labels(key[0], route, str(status)), self._seconds.labels(route))
            count, times = self._kept[key]
            count.inc()
            times.observe(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
