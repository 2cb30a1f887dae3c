"""When calls to outside APIs are sent: repeated after failures (nothing else repeats a call), and held back before the
provider has to refuse them.

Exponential backoff with full jitter (AWS Architecture Blog, "Exponential Backoff and Jitter", 2015), never shorter than
the partner asked for and never past the caller's time limit: if the wait does not fit, the error is raised at once with
its `retry_after`, and the item waits in its queue instead.

Calls are held back by one gate per (provider, address, key, model) and process. It learns from the answers' headers
`x-ratelimit-*` and Retry-After, so no limits need to be configured. The features decide how many calls run at once.
"""

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from imgpipe_orchestration.errors import HeldBack, PartnerAway, PartnerUnavailable, RateLimited, UnreadableAnswer
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

Answer = TypeVar("Answer")

LONGEST_ASKED_SECONDS = 86400.0
"""Longest plausible wait; a longer one comes from a wrong clock or a wrong unit."""
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|s|m|h|d)")
_LONGEST_DURATION = 100
"""Characters of a duration that are read: the pattern's time grows with the square of a row of digits."""
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_NUMBER = 18
"""Digits of a whole number that is believed; Python converts no more than 4,300."""


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


def whole(text: str) -> int | None:
    """A whole number, at least 0; None if it is none, or has more digits than anything that is counted."""
    digits = text.strip()
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= _LONGEST_NUMBER else None


def parse_duration(text: str | None) -> float | None:
    """Seconds from OpenAI's reset headers: "6m0s", "12ms", "1h2m3.5s" or a number; None if invalid or implausible."""
    if not text or len(text) > _LONGEST_DURATION:
        return None
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return believable(sum(float(number) * _SECONDS[unit] for number, unit in parts))
    return parse_seconds(text)


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks us to wait, from retry-after-ms, which OpenAI also sends, or Retry-After."""
    asked = parse_seconds(headers.get("retry-after-ms", ""), 0.001)
    return parse_retry_after(headers) if asked is None else asked


class RateGate:
    """Counts down the remaining calls that the provider reported, and waits for the reset when there are none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = 0.0
        self._remaining: int | None = None
        self._reset_at = 0.0

    def enter(self, deadline: Deadline, *, partner: str) -> None:
        """Return when a call may be sent.

        Raises:
            HeldBack: the wait would pass `deadline`; raised at once, without waiting.
        """
        while True:
            with self._lock:
                now = time.monotonic()
                wait = self._closed_until - now
                if self._remaining is not None and now >= self._reset_at:
                    self._remaining = None
                if self._remaining is not None and self._remaining <= 0:
                    wait = max(wait, self._reset_at - now)
                if wait <= 0:
                    if self._remaining is not None:
                        self._remaining -= 1
                    return
            if wait >= deadline.remaining:
                raise HeldBack(f"{partner} asked us to wait {wait:.0f} s more", retry_after=wait)
            time.sleep(wait)

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Take in the headers of an answer; their names are in lower case, or the mapping is case-insensitive."""
        now = time.monotonic()
        with self._lock:
            if status in (429, 503) and (asked := asked_wait(headers)) is not None:
                self._closed_until = max(self._closed_until, now + asked)
            for kind in ("requests", "tokens"):
                left = whole(headers.get(f"x-ratelimit-remaining-{kind}", ""))
                reset = parse_duration(headers.get(f"x-ratelimit-reset-{kind}"))
                if left is None or reset is None:
                    continue
                if kind == "requests":
                    self._remaining, self._reset_at = left, now + reset
                elif left == 0:
                    self._closed_until = max(self._closed_until, now + reset)


_gates: dict[tuple[str, ...], RateGate] = {}


def gate(*key: str) -> RateGate:
    """The process's gate for this (provider, address, key, model)."""
    return _gates.setdefault(key, RateGate())
