"""Answers with one part replaced by anything at all: each is understood or refused, and no client trips over it."""

import base64
import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from imgpipe_orchestration.errors import ImgpipeError, UnreadableAnswer
from imgpipe_orchestration.partners.flowise import PROSE, Flowise
from imgpipe_orchestration.partners.google_vision import GoogleVision
from imgpipe_orchestration.partners.openai import OpenAIClient, Query
from imgpipe_orchestration.partners.openai_chat import OpenAIChatClient
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.vision_analysis import VisionAnalysisApi
from imgpipe_orchestration_tests.partners.wire import Server, answering, reply, serving

ONCE = RetryPolicy(attempts=1, budget=5)


class Look(BaseModel):
    style: str


def png() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


MESSAGE = {"type": "message", "content": [{"type": "output_text", "text": '{"style": "x"}', "annotations": []}]}
USAGE = {"input_tokens": 1, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 0}, "total_tokens": 3}
RESPONSE = {"id": "r", "object": "response", "model": "m", "status": "completed", "output": [MESSAGE], "usage": USAGE}
BOX = {"vertices": [{"x": 1}, {"y": 2}]}
VISION = {
    "labelAnnotations": [{"description": "a", "score": 0.5}],
    "localizedObjectAnnotations": [{"name": "a", "score": 0.5, "boundingPoly": {"normalizedVertices": [{"x": 0.5}]}}],
    "textAnnotations": [{"description": "a"}, {"description": "b", "boundingPoly": BOX}],
    "faceAnnotations": [{"detectionConfidence": 0.5, "boundingPoly": BOX}],
    "safeSearchAnnotation": {"adult": "UNLIKELY"},
}
ANALYSIS = {"vision_analysis_id": "a", "organization_id": "o", "documents": [{"document_path": "http://x/a.jpg"}]}

CASES: dict[str, tuple[Any, Callable[[Server], Any]]] = {
    "openai vision": (
        RESPONSE,
        lambda at: _openai(at).answer(Query("?", Look, b"\xff\xd8\xff"), model="m"),
    ),
    "openai chat": (
        {
            "id": "c",
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": '{"style": "x"}'}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}},
        },
        lambda at: _openai(at, OpenAIChatClient).answer(Query("?", Look, b"\xff\xd8\xff"), model="m"),
    ),
    "openai embedding": (
        {"object": "list", "model": "m", "data": [{"embedding": [0.5, 1], "index": 0}], "usage": {"prompt_tokens": 1}},
        lambda at: _openai(at).embed("x", model="m"),
    ),
    "openai image": (
        {"created": 1, "data": [{"b64_json": png()}], "usage": USAGE},
        lambda at: _openai(at).draw("x", model="m"),
    ),
    "openai models": (
        {"object": "list", "data": [{"id": "m"}]},
        lambda at: _openai(at).models(),
    ),
    "openai moderation": (
        {"id": "m", "model": "m", "results": [{"category_scores": {"sexual": 0.5, "violence": 0}}]},
        lambda at: _openai(at).judge("x", model="m"),
    ),
    "google vision": (
        {"responses": [VISION]},
        lambda at: GoogleVision(at.url, "k", policy=ONCE).annotate(b"\xff\xd8\xff", size=(10, 10)),
    ),
    "flowise": (
        {"json": [{"style": "x"}], "text": "y"},
        lambda at: Flowise(at.url, policy=ONCE).predict("f", "?", list[Look]),
    ),
    "flowise text": (
        {"text": '```json\n{"prompt": "x"}\n```'},
        lambda at: Flowise(at.url, policy=ONCE).predict("f", "?", PROSE),
    ),
    "vision analysis": (
        {"code": 200, "status": "success", "data": {"page": 1, "total": 1, "vision_analysis": [ANALYSIS]}},
        lambda at: list(
            VisionAnalysisApi(at.url, at.url, "k", guard=Guard.parse("127.0.0.1"), policy=ONCE).unprocessed()
        ),
    ),
}
_clients: dict[str, OpenAIClient] = {}


def _openai(at: Server, kind: type[OpenAIClient] = OpenAIClient) -> OpenAIClient:
    return _clients.setdefault(at.url, kind("k", base_url=at.url, policy=ONCE))


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    for client in _clients.values():
        client.close()
    _clients.clear()


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all parts of a JSON value, itself included."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], part: Any) -> Any:
    if not path:
        return part
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if part is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = part
    return changed


MISSING = object()
JUNK: list[Any] = [MISSING, None, True, 0, -1, 1e308, 10**30, float("nan"), float("inf"), "", "text", "\0"]
JUNK += [[], [[]], {}, [None], [5], {"": None}, {"type": "refusal"}, ["text"], {"code": 8}, {"code": "x"}]


# The SDK serialises what came while it parses it, and Pydantic warns of each odd value.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("name", CASES)
def test_wrong_json_is_understood_or_refused_and_never_crashes(name: str) -> None:
    good, use = CASES[name]
    answer = [good]
    with serving(lambda h, _: reply(h, json.dumps(answer[0]).encode(), Content_Type="application/json")) as server:
        use(server)  # the good one is good

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.sampled_from(list(places(good))), st.sampled_from(JUNK))
        def wrong(path: tuple[Any, ...], part: Any) -> None:
            if path == () and part is MISSING:
                return
            answer[0] = replaced(good, path, part)
            try:
                use(server)
            except ImgpipeError as error:
                assert len(str(error)) < 1000

        wrong()


@pytest.mark.parametrize("levels", [600, 100_000])
@pytest.mark.parametrize("name", CASES)
def test_json_deeper_than_python_reads_is_refused(name: str, levels: int) -> None:
    body = b'{"data": ' + b"[" * levels + b"]" * levels + b"}"
    with answering(body) as server, pytest.raises(UnreadableAnswer):
        CASES[name][1](server)
