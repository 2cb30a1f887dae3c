"""Counting a gateway's requests, for its metrics."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from starlette.types import Scope

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds, from an image that is cached in memory to an upload over a slow line."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestCounts:
    """How many requests there were and how long they took, by route (never by path: ids would make a series each).

    In plain dictionaries, because counters of prometheus_client take several times as long, which a hot image notices.
    For the event loop only.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._buckets: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def note(self, scope: Scope, status: int, seconds: float) -> None:
        """A request was answered."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "other")
        self._requests[method, route, status] += 1
        self._buckets[route, bisect_left(BUCKETS, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterator[Metric]:
        labels = ("method", "route", "status")
        requests = CounterMetricFamily("imgpipe_http_requests", "Requests answered.", labels=labels)
        for (method, route, status), number in self._requests.items():
            requests.add_metric((method, route, str(status)), number)
        yield requests
        told = "From the request's head to the end of the answer."
        times = HistogramMetricFamily("imgpipe_http_request_seconds", told, labels=("route",))
        bounds = [*map(str, BUCKETS), "+Inf"]
        for route, seconds in self._seconds.items():
            within = accumulate(self._buckets[route, place] for place in range(len(bounds)))
            times.add_metric((route,), list(zip(bounds, within, strict=True)), seconds)
        yield times
