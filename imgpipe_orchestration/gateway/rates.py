"""How often one caller may do something.

Each gateway counts for itself, in memory: with three gateways behind a load balancer a caller may have three times as
much. A caller's address is the one that uvicorn names. Behind a proxy, set FORWARDED_ALLOW_IPS to the proxy's address,
or all callers have that address.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from imgpipe_orchestration.errors import Retryable

MOST_CALLERS = 50_000
"""Callers whose rates are remembered; the least recently seen is forgotten first."""


class TooManyRequests(Retryable):
    """This caller asks more often than it may."""

    status = 429
    title = "Too many requests"
    report = False


class Rate:
    """A token bucket for each caller: `most` events in `seconds`, which may come all at once. 0: no limit."""

    def __init__(self, most: int, seconds: float = 60.0) -> None:
        self._most, self._each = float(most), seconds / most if most else 0.0
        self._callers: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait(self, caller: str) -> float:
        """Seconds until the caller's next event is allowed; 0 for now."""
        return max(0.0, (1.0 - self._tokens(caller)) * self._each) if self._most else 0.0

    def count(self, caller: str) -> None:
        """Count an event of the caller."""
        if self._most:
            self._callers[caller] = (self._tokens(caller) - 1, time.monotonic())
            self._callers.move_to_end(caller)
            if len(self._callers) > MOST_CALLERS:
                self._callers.popitem(last=False)

    def take(self, caller: str, words: str) -> None:
        """Count an event of the caller, from any thread.

        Raises:
            TooManyRequests: it is one too many; says `words`.
        """
        with self._lock:
            if seconds := self.wait(caller):
                raise TooManyRequests(words, retry_after=seconds)
            self.count(caller)

    def _tokens(self, caller: str) -> float:
        tokens, at = self._callers.get(caller, (self._most, 0.0))
        return min(self._most, tokens + (time.monotonic() - at) / self._each)
