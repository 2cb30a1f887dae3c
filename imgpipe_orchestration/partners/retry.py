"""Retries of calls to outside APIs; nothing else repeats a call.

Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff and Jitter", 2015), never shorter than
the partner asked for and never past the caller's time limit: if the wait does not fit, the error is raised at once with
its `retry_after`, and the item waits in its queue instead.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

from imgpipe_orchestration.errors import PartnerAway, PartnerUnavailable, RateLimited, UnreadableAnswer
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

Answer = TypeVar("Answer")

LONGEST_ASKED_SECONDS = 86400.0
"""Longest plausible wait; a longer one comes from a wrong clock or a wrong unit."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a call is tried. Times in seconds."""

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 20.0
    budget: float = 120.0
    """Time for all tries and waits together."""
    stopped: Callable[[], object] = _never
    """Whether nobody waits for the answer any more; asked often. Then the time is over."""


class Deadline:
    """A point in time on the monotonic clock, passed down so that all parts of a call share one limit."""

    def __init__(self, seconds: float, stopped: Callable[[], object] = _never) -> None:
        self._end = time.monotonic() + seconds
        self._stopped = stopped

    @property
    def remaining(self) -> float:
        """Seconds left, never negative."""
        return 0.0 if self._stopped() else max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining <= 0


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
    jitter = tenacity.wait_random_exponential(multiplier=policy.first_wait, max=policy.longest_wait)

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = getattr(error, "retry_after", None)
        return max(float(asked), jitter(state)) if asked is not None else jitter(state)

    def sleep(seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not deadline.passed:
            time.sleep(min(left, 1.0))

    last = tenacity.stop_after_attempt(policy.attempts)

    def stop(state: tenacity.RetryCallState) -> bool:
        return last(state) or state.upcoming_sleep >= deadline.remaining

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_uncharged if paid else _worth_repeating),
        wait=wait,
        stop=stop,
        sleep=sleep,
        before_sleep=_log,
        reraise=True,
    )
    return retrying(attempt, deadline)


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, PartnerUnavailable | RateLimited) and not isinstance(error, UnreadableAnswer)


def _uncharged(error: BaseException) -> bool:
    known = isinstance(error, RateLimited | PartnerAway) or getattr(error, "partner_status", None) is not None
    return known and _worth_repeating(error)


def _log(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.warning("%s; trying again in %.1f s", error, state.upcoming_sleep, extra={"attempt": state.attempt_number})


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from an answer's Retry-After, a number or an HTTP date (RFC 9110, 10.2.3); None for none or an
    implausible one. Header names are in lower case, or the mapping is case-insensitive.

    A date counts from the answer's Date, because one of the two clocks may be wrong.
    """
    value = headers.get("retry-after", "")
    seconds, until = finite(value), _moment(value)
    if seconds is None and until is not None:
        now = _moment(headers.get("date", ""))
        seconds = max(0.0, until - (time.time() if now is None else now))
    return believable(seconds)


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):  # OverflowError: a year of twenty digits
        return None


def believable(seconds: float | None) -> float | None:
    """The wait, or None if it is implausibly long."""
    return None if seconds is None or seconds > LONGEST_ASKED_SECONDS else seconds


_LONGEST_NUMBER = 18
"""Digits of a whole number that is believed; Python converts no more than 4,300."""


def whole(text: str) -> int | None:
    """A whole number, at least 0; None if it is none, or has more digits than anything that is counted."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER else None


def finite(text: str) -> float | None:
    """A number of seconds, at least 0; None if it is not a finite number."""
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None
