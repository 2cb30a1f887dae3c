"""One suite for every partner: what goes wrong on the wire arrives as the right error, after the right tries."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerAway,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.flowise import Flowise
from imgpipe_orchestration.partners.google_vision import GoogleVision
from imgpipe_orchestration.partners.openai import OpenAIClient, Query
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.vision_analysis import VisionAnalysisApi
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.conftest import QUICK


class Look(BaseModel):
    style: str
    quality_score: int


@dataclass(frozen=True)
class Call:
    """One way to use one partner."""

    provider: str
    make: Callable[..., Any]
    """Makes it at a stand-in, with a photo, a key, and how long and how often it is tried."""
    paid: bool = True
    """What may be charged is not asked for again at once when its answer does not come."""


def _openai(use: Callable[[OpenAIClient, bytes], Any]) -> Call:
    return Call("openai", lambda at, photo, key, **more: use(OpenAIClient(key, base_url=at.openai_url, **more), photo))


def _unprocessed(at: StandInAccess, _: bytes, key: str, **tries: Any) -> list[Any]:
    return list(VisionAnalysisApi(at.analyses_url, "", key, guard=Guard.parse("127.0.0.1"), **tries).unprocessed())


CALLS = {
    "openai vision": _openai(lambda c, photo: c.answer(Query("?", Look, photo), model="gpt-6-luna")),
    "openai embedding": _openai(lambda c, _: c.embed("red", model="text-embedding-3-small")),
    "openai image": _openai(lambda c, _: c.draw("a face", model="gpt-image-2", size="64x64")),
    "openai edit": _openai(lambda c, photo: c.draw("again", photo, model="gpt-image-2", size="64x64")),
    "openai models": _openai(lambda c, _: c.models()),
    "google vision": Call(
        "google",
        lambda at, photo, key, **tries: GoogleVision(at.google_url, key, **tries).annotate(photo, size=(600, 400)),
    ),
    "flowise": Call(
        "flowise",
        lambda at, _, key, **tries: Flowise(at.flowise_url, key, **tries).predict(
            "persona-data", {"count": 1}, list[dict[str, Any]]
        ),
    ),
    "vision analyses": Call("vision_analysis", _unprocessed, paid=False),
}

UNDER_POLICY = ["openai vision", "openai image", "openai edit"]
PAID = [*UNDER_POLICY, "openai embedding"]


@pytest.fixture(params=CALLS)
def call(request: pytest.FixtureRequest) -> Call:
    return CALLS[request.param]


@pytest.fixture
def use(
    call: Call, standins: StandInAccess, request: pytest.FixtureRequest, photo: bytes
) -> Callable[..., ImgpipeError | None]:
    """Make the call; returns the error it ended with, or None."""

    def run(timeout: float = 5, policy: RetryPolicy = QUICK) -> ImgpipeError | None:
        try:
            call.make(standins, photo, request.node.nodeid, timeout=timeout, policy=policy)
        except ImgpipeError as error:
            return error
        return None

    return run


def test_a_good_answer_takes_one_call(call: Call, use: Callable[..., Any], standins: StandInAccess) -> None:
    assert use() is None
    assert [c["status"] for c in standins.calls(call.provider)] == [200]


@pytest.mark.parametrize(("kind", "status"), [("unauthorized", 401), ("forbidden", 403), ("not_found", 404)])
def test_a_refusal_is_permanent_and_not_repeated(
    kind: str, status: int, call: Call, use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault(call.provider, kind, count=None)
    error = use()
    assert isinstance(error, PartnerRefused)
    assert error.partner_status == status
    assert len(standins.calls(call.provider)) == 1


def test_a_rate_limit_is_waited_out(call: Call, use: Callable[..., Any], standins: StandInAccess) -> None:
    standins.fault(call.provider, "rate_limit", retry_after=0.5)
    began = time.monotonic()
    assert use() is None
    assert time.monotonic() - began >= 0.5
    assert [c["status"] for c in standins.calls(call.provider)] == [429, 200]


def test_a_rate_limit_beyond_our_time_is_passed_on_with_its_wait(
    call: Call, use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault(call.provider, "rate_limit", retry_after=600, count=None)
    began = time.monotonic()
    error = use()
    assert time.monotonic() - began < 30
    assert isinstance(error, RateLimited)
    assert error.retry_after == pytest.approx(600, abs=5)
    assert len(standins.calls(call.provider)) == 1


def test_a_server_error_is_repeated_and_then_passed_on(
    call: Call, use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault(call.provider, "server_error", count=1)
    assert use() is None
    standins.fault(call.provider, "server_error", count=None, status=503)
    assert isinstance(use(), PartnerAway)
    # Exactly ours: the OpenAI SDK's own retries are off.
    assert [c["status"] for c in standins.calls(call.provider)] == [500, 200, 503, 503]


@pytest.mark.parametrize("kind", ["slow", "drip"])
def test_a_slow_answer_is_given_up_in_time(
    kind: str, call: Call, use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault(call.provider, kind, count=None, seconds=40)
    began = time.monotonic()
    error = use(timeout=1, policy=RetryPolicy(attempts=2, first_wait=0.01, budget=20))
    assert time.monotonic() - began < 30
    assert isinstance(error, PartnerUnavailable)
    wanted = 1 if call.paid else 2  # what may be charged is not asked for again
    wait_for(lambda: len(standins.calls(call.provider)) >= wanted, "calls to be noted, maybe after they are given up")
    assert len(standins.calls(call.provider)) == wanted


@pytest.mark.parametrize("kind", ["truncated_json", "not_json", "wrong_shape"])
def test_an_unreadable_answer_is_not_bought_again_at_once(
    kind: str, call: Call, use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault(call.provider, kind, count=None)
    error = use()
    assert isinstance(error, UnreadableAnswer)
    assert len(str(error)) < 200, "what the partner sent belongs into the detail"
    # Flowise asks once more, with the reason, when the protocol is right and only the content is not.
    asked = 2 if call.provider == "flowise" and kind == "wrong_shape" else 1
    assert len(standins.calls(call.provider)) == asked


def test_a_connection_that_breaks_is_an_unavailable_partner(
    call: Call, use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault(call.provider, "cut", count=None)
    assert isinstance(use(), PartnerUnavailable)
    assert len(standins.calls(call.provider)) == (1 if call.paid else 2)


def test_nobody_listening_is_an_unavailable_partner(call: Call, photo: bytes, request: pytest.FixtureRequest) -> None:
    nowhere = StandInAccess("http://127.0.0.1:9")
    with pytest.raises(PartnerUnavailable):
        call.make(nowhere, photo, request.node.nodeid, timeout=2, policy=QUICK)


def test_the_key_is_in_no_error(call: Call, standins: StandInAccess, photo: bytes) -> None:
    key = "sk-very-secret-key-0123456789"
    for kind in ("unauthorized", "server_error", "rate_limit", "not_json", "cut"):
        standins.fault(call.provider, kind, count=2, retry_after=0)
        with pytest.raises(ImgpipeError) as caught:
            call.make(standins, photo, key, timeout=1, policy=RetryPolicy(attempts=1, budget=2))
        assert key not in f"{caught.value} {caught.value.detail} {caught.value!r}"
        standins.admin("DELETE", "faults")


@pytest.mark.parametrize(
    ("call", "kind", "expected"),
    [
        *((name, "insufficient_quota", SpendingPaused) for name in PAID),
        *((name, "content_policy", PartnerRefused) for name in UNDER_POLICY),
    ],
    indirect=["call"],
)
def test_a_used_up_quota_pauses_spending_and_content_policy_refuses_and_neither_is_repeated(
    call: Call, kind: str, expected: type[ImgpipeError], use: Callable[..., Any], standins: StandInAccess
) -> None:
    standins.fault("openai", kind, count=None)
    error = use()
    assert isinstance(error, expected)
    assert getattr(error, "spends_attempt", True) is (kind == "content_policy")
    assert len(standins.calls("openai")) == 1
