"""Holding calls back before the provider has to refuse them.

One gate per (provider, address, key, model) and process. It learns from the answers' headers `x-ratelimit-*` and
Retry-After, so no limits need to be configured. The features decide how many calls run at once.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping

from imgpipe_orchestration.errors import HeldBack
from imgpipe_orchestration.partners.retry import Deadline, believable, parse_retry_after, parse_seconds, whole

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|us|s|m|h|d)")
_LONGEST = 100
"""Characters of a duration that are read: the pattern's time grows with the square of a row of digits."""
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str | None) -> float | None:
    """Seconds from OpenAI's reset headers: "6m0s", "12ms", "1h2m3.5s" or a number; None if invalid or implausible."""
    if not text or len(text) > _LONGEST:
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
