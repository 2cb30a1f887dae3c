"""Holding back before the provider has to refuse."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.retry import Deadline, RateGate, RetryPolicy, parse_duration, parse_retry_after
from imgpipe_orchestration_tests.conftest import StandInAccess


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("12ms", 0.012),
        ("1h2m3.5s", 3723.5),
        ("1d", 86400),
        ("0s", 0),
        ("17", 17),
        ("250us", 0.00025),
        ("", None),
        (None, None),
        ("soon", None),
        ("5 apples", None),
        ("-3", 0),
        ("100d", None),
    ],
)
def test_durations_of_the_reset_headers(text: str | None, seconds: float | None) -> None:
    assert parse_duration(text) == (seconds if seconds is None else pytest.approx(seconds))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert parse_retry_after({"retry-after": "2.5"}) == 2.5
    assert parse_retry_after({"retry-after": "-1"}) == 0
    assert parse_retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}) == 0
    assert parse_retry_after({"retry-after": "86400"}) == 86400
    assert parse_retry_after({"retry-after": "whenever"}) is None
    assert parse_retry_after({}) is None


ENDLESS_YEAR = f"Thu, 01 Jan {10**20} 00:00:00 GMT"


@pytest.mark.parametrize(
    "text", ["nan", "inf", "1e400", "1e300", "86401", "Thu, 01 Jan 2126 00:00:00 GMT", ENDLESS_YEAR]
)
def test_a_retry_after_that_nobody_means_is_ignored(text: str) -> None:
    assert parse_retry_after({"retry-after": text}) is None


def test_no_tokens_left_closes_the_gate_too() -> None:
    busy = RateGate()
    began = time.monotonic()
    busy.learn(200, {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "200ms"})
    busy.enter(Deadline(5), partner="X")
    assert time.monotonic() - began >= 0.15


def client_on(standins: StandInAccess, key: str) -> OpenAIClient:
    """Six calls are allowed in a quarter of a second."""
    standins.admin("POST", "limits", {"openai": {"requests": 6, "seconds": 0.25}})
    policy = RetryPolicy(attempts=8, first_wait=0.05, longest_wait=0.2, budget=30)
    return OpenAIClient(key, base_url=standins.openai_url, policy=policy)


def test_calls_in_a_row_are_never_refused_because_the_headers_are_heeded(standins: StandInAccess) -> None:
    client = client_on(standins, "in a row")
    began = time.monotonic()
    for number in range(13):
        client.embed(f"word {number}", model="text-embedding-3-small", dimensions=8)
    client.close()
    assert time.monotonic() - began >= 0.5
    assert [call["status"] for call in standins.calls("openai")] == [200] * 13


def test_parallel_calls_beyond_the_limit_are_all_answered(standins: StandInAccess) -> None:
    client = client_on(standins, "in parallel")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: client.embed(f"word {n}", model="text-embedding-3-small", dimensions=8), range(12)))
    client.close()
    assert [call["status"] for call in standins.calls("openai")].count(200) == 12
