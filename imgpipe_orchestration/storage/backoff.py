"""How long a failed item waits before the next try."""

from __future__ import annotations

import math
import random

BACKOFF_SECONDS = 5.0
"""Pause after the first failure; each further one doubles it."""
BACKOFF_LIMIT_SECONDS = 600.0
PAUSE_SECONDS = 15.0
"""Pause when a backend, and not the item, was at fault."""
PAUSE_LIMIT_SECONDS = 86400.0
"""Longest pause, whatever a partner's Retry-After says."""


def backoff(failures: int) -> float:
    """Seconds to wait after the (failures + 1)-th failure: exponential, capped, with half of it jitter."""
    full = min(BACKOFF_SECONDS * 2.0 ** min(failures, 30), BACKOFF_LIMIT_SECONDS)
    return full * (0.5 + random.random() / 2)  # noqa: S311 - jitter needs no cryptography


def asked_for(retry_after: float | None) -> float:
    """The wait that a partner asked for, bounded: some send dates in the past or centuries ahead. 0 for none."""
    if retry_after is None or math.isnan(retry_after):
        return 0.0
    return min(max(retry_after, 0.0), PAUSE_LIMIT_SECONDS)
