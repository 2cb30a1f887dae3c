"""Retries of calls to outside APIs; nothing else repeats a call.

Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff and Jitter", 2015), never shorter than
the partner asked for and never past the caller's time limit: if the wait does not fit, the error is raised at once with
its `retry_after`, and the item waits in its queue instead.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from imgpipe_orchestration.errors import PartnerAway, PartnerUnavailable, RateLimited, UnreadableAnswer
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

Answer = TypeVar("Answer")

LONGEST_ASKED_SECONDS = 86400.0
"""Longest plausible wait; a longer one comes from a wrong clock or a wrong unit."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is tried. Times in seconds."""

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 20.0
    budget: float = 120.0
    """Time for all tries and waits together."""
    stopped: Callable[[], object] = lambda: False
    """Whether nobody waits for the answer any more; asked often. Then the time is over."""


class Deadline:
    """A point in time on the monotonic clock, passed down so that all parts of a call share one limit."""

    def __init__(self, seconds: float, stopped: Callable[[], object] = lambda: False) -> None:
        self._end = time.monotonic() + seconds
        self._stopped = stopped

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return 0.0 if self._stopped() else max(0.0, self._end - time.monotonic())


def call(attempt: Callable[[Deadline], Answer], policy: RetryPolicy, *, paid: bool = False) -> Answer:
    """Run `attempt` until it answers, fails for good or runs out of tries or time.

    Only `PartnerUnavailable` and `RateLimited` are tried again. A used-up quota (`SpendingPaused`) and a refusal do not
    change within seconds, and an `UnreadableAnswer` may have been paid for.

    Args:
        paid: each answer is charged, so that only what was certainly not answered is tried again: no connection, or an
            error status. A call that timed out or broke off waits for its item's next attempt.

    Raises:
        ImgpipeError: the error of the last attempt.
    """
    deadline = Deadline(policy.budget, policy.stopped)
    tried = 0
    while True:
        tried += 1
        try:
            return attempt(deadline)
        except (PartnerUnavailable, RateLimited) as error:
            jitter = random.uniform(0, min(policy.longest_wait, policy.first_wait * 2 ** (tried - 1)))  # noqa: S311
            wait = max(jitter, error.retry_after or 0.0)
            uncharged = isinstance(error, RateLimited | PartnerAway) or error.partner_status is not None
            again = not isinstance(error, UnreadableAnswer) and (not paid or uncharged)
            if not again or tried >= policy.attempts or wait >= deadline.remaining:
                raise
            log.warning("%s; trying again in %.1f s", error, wait, extra={"attempt": tried})
        until = time.monotonic() + wait
        while (left := until - time.monotonic()) > 0 and deadline.remaining:
            time.sleep(min(left, 1.0))


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from an answer's Retry-After, a number or an HTTP date (RFC 9110, 10.2.3); None for none or an
    implausible one. Header names are in lower case, or the mapping is case-insensitive.

    A date counts from the answer's Date, because one of the two clocks may be wrong.
    """
    value = headers.get("retry-after", "")
    until, now = _moment(value), _moment(headers.get("date", ""))
    return parse_seconds(value) if until is None else believable(until - (time.time() if now is None else now))


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):  # OverflowError: a year of twenty digits
        return None


def parse_seconds(text: str, unit: float = 1.0) -> float | None:
    """A wait in seconds from a number of units; None if it is none, or implausibly long."""
    try:
        return believable(float(text) * unit)
    except ValueError:
        return None


def believable(seconds: float) -> float | None:
    """The wait, at least 0; None if it is infinite or implausibly long."""
    return max(0.0, seconds) if math.isfinite(seconds) and seconds <= LONGEST_ASKED_SECONDS else None


_LONGEST_NUMBER = 18
"""Digits of a whole number that is believed; Python converts no more than 4,300."""


def whole(text: str) -> int | None:
    """A whole number, at least 0; None if it is none, or has more digits than anything that is counted."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER else None
