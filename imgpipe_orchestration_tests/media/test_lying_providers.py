"""AI providers whose answers are well-formed and wrong: an image loses the provider's fields and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.partners.wire import pass_on, reply, serving


def providers_of(gateway: Gateway) -> dict[str, str]:
    """The providers' states of an image that is finished and shown."""
    gateway.upload(1, profile_image=picture())
    gateway.run_due()
    assert gateway.rows("select status from media_files") == [("completed",)]
    assert gateway.rows("select status from pending_images") == [("complete",)]
    ((states,),) = gateway.rows("select providers from media_ai_analysis")
    found: dict[str, str] = states
    return found


@pytest.mark.parametrize("vector", [[0.5] * 768, [1e300] * 1536, []], ids=["short", "huge", "empty"])
def test_a_vector_that_the_column_cannot_hold(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, vector: list[float]
) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        if not handler.path.endswith("/embeddings"):
            reply(handler, b"{}", 400, Content_Type="application/json")
            return
        body = {"object": "list", "model": "m", "data": [{"embedding": vector}], "usage": {"prompt_tokens": 1}}
        reply(handler, json.dumps(body).encode(), Content_Type="application/json")

    with serving(answer) as server:
        states = providers_of(
            make_gateway(
                openai_api_key=f"vectors-{len(vector)}",
                openai_base_url=server.url,
                google_vision_api_key="test-key",
                google_vision_endpoint=standins.google_url,
            )
        )
    assert states["google_vision"] == "ok"
    assert states["openai_embedding"].startswith("failed: ")


def test_a_confidence_that_is_no_number(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> None:
    def unsure(body: bytes) -> bytes:
        return re.sub(rb'(confidence\\":\s*)[\d.]+', rb"\1NaN", body)

    with serving(lambda h, _: pass_on(h, standins.openai_url, unsure)) as server:
        states = providers_of(make_gateway(openai_api_key="test-key", openai_base_url=server.url))
    assert states["openai_vision"] == "ok"


NONSENSE = {
    "a label that is a number": json.dumps({"responses": [{"labelAnnotations": [{"description": 5}]}]}),
    "a brand that is an object": json.dumps({"responses": [{"logoAnnotations": [{"description": {"a": 1}}]}]}),
    "deeper than can be read": "[" * 100_000,
    "deeper than can be stored": '{"responses": [{"x": ' + "[" * 600 + "]" * 600 + "}]}",
}


@pytest.mark.parametrize("body", NONSENSE.values(), ids=NONSENSE)
def test_an_annotation_that_is_none(make_gateway: Callable[..., Gateway], body: str) -> None:
    with serving(lambda h, _: reply(h, body.encode(), Content_Type="application/json")) as server:
        gateway = make_gateway(google_vision_api_key="test-key", google_vision_endpoint=server.url)
        states = providers_of(gateway)
    assert states["google_vision"].startswith("failed: ")


def test_a_novel_read_off_a_photo_is_cut_to_what_the_main_api_takes(make_gateway: Callable[..., Gateway]) -> None:
    novel = " ".join(f"word{n}" for n in range(300_000))
    seen = {"textAnnotations": [{"description": novel}], "logoAnnotations": [{"description": "x" * 3_000_000}]}
    body = json.dumps({"responses": [seen]}).encode()
    with serving(lambda h, _: reply(h, body, Content_Type="application/json")) as server:
        gateway = make_gateway(google_vision_api_key="test-key", google_vision_endpoint=server.url)
        assert providers_of(gateway)["google_vision"] == "ok"
    analysis = gateway.get("/api/media/analysis/1", **gateway.as_worker).json()["analysis"]
    assert analysis["detected_text"].startswith("word0 word1 ")
    assert len(analysis["detected_text"]) == 10_000


@pytest.mark.parametrize("labels", [["word " * 200_000], ["word " * 100] * 20_000], ids=["long", "many"])
def test_more_labels_than_can_be_embedded(
    make_gateway: Callable[..., Gateway], standins: StandInAccess, labels: list[str]
) -> None:
    body = json.dumps({"responses": [{"labelAnnotations": [{"description": label} for label in labels]}]}).encode()
    with serving(lambda h, _: reply(h, body, Content_Type="application/json")) as google:
        sent: list[bytes] = []

        def listen(handler: BaseHTTPRequestHandler, _: int) -> None:
            if handler.path.endswith("/embeddings"):
                sent.append(handler.sent)  # type: ignore[attr-defined]  # by `serving`
            pass_on(handler, standins.openai_url)

        with serving(listen) as openai:
            states = providers_of(
                make_gateway(
                    openai_api_key="test-key",
                    openai_base_url=openai.url,
                    google_vision_api_key="test-key",
                    google_vision_endpoint=google.url,
                )
            )
    assert states["openai_embedding"] == states["google_vision"] == "ok"
    assert 300 < len(json.loads(sent[0])["input"]) <= 4_000
