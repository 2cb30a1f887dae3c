"""The one place where calls are repeated."""

from __future__ import annotations

import time

import pytest

from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.retry import Deadline, RetryPolicy, call

FAST = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02, budget=5)


class Partner:
    """Raises what it is given, one after the other, then answers."""

    def __init__(self, *errors: ImgpipeError) -> None:
        self.errors = list(errors)
        self.asked = 0

    def __call__(self, _: Deadline) -> str:
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_a_passing_fault_is_repeated() -> None:
    partner = Partner(PartnerUnavailable("down"), RateLimited("slow down"))
    assert call(partner, FAST) == "answer"
    assert partner.asked == 3


def test_the_last_error_is_passed_on_when_the_tries_are_spent() -> None:
    partner = Partner(*(PartnerUnavailable(f"down {n}") for n in range(5)))
    with pytest.raises(PartnerUnavailable, match="down 2"):
        call(partner, FAST)
    assert partner.asked == 3


@pytest.mark.parametrize(
    "error",
    [PartnerRefused("no"), SpendingPaused("broke"), UnreadableAnswer("what?"), RateLimited("later", retry_after=60)],
)
def test_what_seconds_cannot_mend_is_asked_once(error: ImgpipeError) -> None:
    partner = Partner(error)
    began = time.monotonic()
    with pytest.raises(type(error)):
        call(partner, FAST)
    assert partner.asked == 1
    assert time.monotonic() - began < 10


def test_what_the_partner_asks_for_is_the_least_wait() -> None:
    began = time.monotonic()
    assert call(Partner(RateLimited("wait", retry_after=0.3)), FAST) == "answer"
    assert time.monotonic() - began >= 0.3


def test_waits_stay_within_the_budget() -> None:
    policy = RetryPolicy(attempts=1000, first_wait=0.05, longest_wait=0.1, budget=0.5)
    began = time.monotonic()
    with pytest.raises(PartnerUnavailable):
        call(Partner(*(PartnerUnavailable("down") for _ in range(1000))), policy)
    assert time.monotonic() - began < 30
