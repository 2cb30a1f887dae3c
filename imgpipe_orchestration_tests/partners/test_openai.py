"""OpenAI's client on the stand-in's wire: what is sent, what is made of the answer."""

import io
import json
from contextlib import nullcontext
from typing import Any, Literal

import pytest
from PIL import Image
from pydantic import BaseModel, Field

from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.openai import OpenAIClient, Query
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.partners.conftest import asking
from imgpipe_orchestration_tests.partners.wire import Behaviour, reply


class Box(BaseModel):
    left: float = Field(ge=0, le=1)
    top: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    bottom: float = Field(ge=0, le=1)


class Look(BaseModel):
    style: str
    quality_score: int = Field(ge=0, le=100)
    severity: Literal["low", "medium", "high"]
    mood_keywords: list[str] = Field(min_length=1, max_length=4)
    dominant_colors: list[str]
    alt_text: str
    box: Box | None


def always(body: bytes, status: int = 200) -> Behaviour:
    return lambda handler, _: reply(handler, body, status, Content_Type="application/json")


def answered(answer: dict[str, Any], schema: type[BaseModel] = Look) -> tuple[Any, Any]:
    """What the client makes of an answer of which only this is said, and what it had sent."""
    whole = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "usage": None, **answer}
    with asking(always(json.dumps(whole).encode()), OpenAIClient) as (client, server):
        seen = client.answer(Query("?", schema, b"\xff\xd8\xff"), model="m")
    return seen.value, json.loads(server.requests[0][2])


def saying(text: str) -> list[Any]:
    """An answer's `output`."""
    said = {"type": "output_text", "text": text, "annotations": []}
    return [{"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [said]}]


def test_an_image_is_looked_at_with_the_callers_schema(openai: OpenAIClient, photo: bytes) -> None:
    seen = openai.answer(Query("what is it?", Look, photo), model="gpt-6-luna")
    assert isinstance(seen.value, Look)
    assert seen.value.dominant_colors[0].startswith("#c"), "measured: the photo is red"
    assert seen.usage.model == "gpt-6-luna-standin"
    assert seen.usage.standin
    assert seen.usage.input_tokens > 0
    assert seen.usage.output_tokens > 0
    assert seen.raw["output"][0]["content"][0]["type"] == "output_text"
    json.dumps(seen.raw)


def test_an_answer_outside_the_schema_is_unreadable(
    openai: OpenAIClient, photo: bytes, standins: StandInAccess
) -> None:
    standins.fault("openai", "invalid_answer")
    with pytest.raises(UnreadableAnswer):
        openai.answer(Query("?", Look, photo), model="gpt-6-luna")


@pytest.mark.parametrize("wrapped", ["{}", "```json\n{}\n```", "Here it is [1]:\n{}\nAnything else?"])
def test_a_paid_answer_is_read_however_its_json_is_wrapped(wrapped: str) -> None:
    said = {"left": 0.1, "top": 0.2, "right": 0.3, "bottom": 0.4}
    seen, sent = answered({"status": "completed", "output": saying(wrapped.replace("{}", json.dumps(said)))}, Box)
    assert seen == Box(**said)
    asked = sent["text"]["format"]
    assert (asked["name"], asked["strict"], asked["schema"]["required"]) == ("Box", True, list(said))
    assert sent["store"] is False, "pictures are not kept at the provider"
    assert sent["input"][0]["content"][1]["image_url"].startswith("data:image/jpeg;base64,/9j/")


@pytest.mark.parametrize("text", ["", '{"left": 0.1, "to'])
@pytest.mark.parametrize(
    ("reason", "error", "told"),
    [
        ("max_output_tokens", UnreadableAnswer, "cut off"),
        ("content_filter", PartnerRefused, "policy"),
        ("\0", UnreadableAnswer, "incomplete"),
        (["why"] * 1000, UnreadableAnswer, "incomplete"),
    ],
)
def test_an_incomplete_answer_says_why(reason: Any, error: type[ImgpipeError], told: str, text: str) -> None:
    with pytest.raises(error, match=told) as caught:
        answered({"status": "incomplete", "incomplete_details": {"reason": reason}, "output": saying(text)}, Box)
    assert caught.value.usage, "it was charged"
    assert_can_be_kept(caught.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("rate_limit_exceeded", RateLimited),
        ("server_error", PartnerUnavailable),
        ("invalid_prompt", PartnerRefused),
        ("image_parse_error", PartnerRefused),
        ("insufficient_quota", SpendingPaused),
        (402, SpendingPaused),
        (429, RateLimited),
        (503, PartnerUnavailable),
        (400, PartnerRefused),
        (None, UnreadableAnswer),
        ("\0", UnreadableAnswer),
        ("x" * 61, UnreadableAnswer),
    ],
)
def test_a_failure_told_inside_a_200_is_one(code: str | int | None, error: type[ImgpipeError]) -> None:
    with pytest.raises(error) as caught:
        answered({"status": "failed", "error": {"code": code, "message": "why"}})
    assert_can_be_kept(caught.value)


def assert_can_be_kept(error: ImgpipeError) -> None:
    """In a row, whatever the provider wrote: PostgreSQL takes no NUL, and nobody reads a book in a table."""
    assert error.public.isprintable()
    assert len(error.public) < 200


@pytest.mark.parametrize(
    ("status", "told"), [(301, "redirected to /sign-in, which is not followed"), (402, "requires payment")]
)
def test_a_redirect_and_an_empty_account_are_told_with_their_status(status: int, told: str) -> None:
    away = asking(lambda h, _: reply(h, b"", status=status, Location="/sign-in?for=you"), OpenAIClient)
    with away as (client, _), pytest.raises(PartnerRefused, match=f"{told} .HTTP {status}.") as caught:
        client.draw("a portrait", model="m")
    assert caught.value.partner_status == status


@pytest.mark.parametrize("status", [408, 409, 425])
def test_what_was_too_late_too_early_or_in_the_way_is_sent_again(status: int) -> None:
    def behave(handler: Any, number: int) -> None:
        body = b'{"object": "list", "data": [{"id": "gpt-9", "object": "model"}]}'
        reply(handler, body, 200 if number else status, Content_Type="application/json")

    with asking(behave, OpenAIClient, attempts=2) as (client, server):
        assert client.models() == {"gpt-9"}
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "error", "kept"),
    [
        (403, {"code": 403, "message": "flagged", "metadata": {"reasons": ["sexual"], "flagged_input": "a"}}, None),
        (403, {"code": 403, "message": "Key limit exceeded", "metadata": {"provider_name": "OpenAI"}}, 403),
        (400, {"code": "model_not_found", "message": "The requested model 'm' does not exist."}, 404),
        (400, {"code": 400, "message": "some/model is not a valid model ID"}, 404),
        (400, {"code": "400", "message": "{'error': '/responses: Invalid model name passed in model=m.'}"}, 404),
        (400, {"code": "invalid_value", "message": "The image is not a valid image."}, 400),
    ],
)
def test_the_status_of_a_refusal_is_what_it_is_about_and_none_for_its_content(
    status: int, error: dict[str, Any], kept: int | None
) -> None:
    refusing = asking(always(json.dumps({"error": error}).encode(), status), OpenAIClient)
    with refusing as (client, _), pytest.raises(PartnerRefused) as caught:
        client.answer(Query("?", Look), model="m")
    assert caught.value.partner_status == kept


def test_texts_that_share_words_are_near_each_other(openai: OpenAIClient) -> None:
    def embed(text: str) -> list[float]:
        return openai.embed(text, model="text-embedding-3-small").value

    boat, ship, soup = embed("a red boat at sea"), embed("the red boat in the harbour"), embed("tomato soup recipe")
    assert len(boat) == 1536
    assert sum(v * v for v in boat) == pytest.approx(1, abs=1e-3)

    def near(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert near(boat, ship) > near(boat, soup) + 0.2


@pytest.mark.parametrize(
    ("refusal", "asked"),
    [
        ('Model "e5" does not support matryoshka representation, changing output dimensions will lead to', [8, 0, 0]),
        ("Invalid value for 'dimensions' = 8. Must be less than or equal to 4.", [8, 8]),
        ({"error": "`dimensions` is not supported"}, [8, 0, 0]),
        ({"detail": "This model does not support dimensions"}, [8, 0, 0]),
    ],
)
def test_a_model_whose_vectors_have_one_length_is_asked_for_no_other_again(refusal: Any, asked: list[int]) -> None:
    answer = {"object": "list", "model": "e5", "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.8]}]}

    def behave(handler: Any, _: int) -> None:
        refused = "dimensions" in json.loads(handler.sent)
        told = {"error": {"message": refusal, "code": 400}} if isinstance(refusal, str) else refusal
        body = told if refused else answer
        reply(handler, json.dumps(body).encode(), 400 if refused else 200, Content_Type="application/json")

    with asking(behave, OpenAIClient) as (client, server):
        for _ in range(2):
            with nullcontext() if 0 in asked else pytest.raises(PartnerRefused):
                assert client.embed("red", model="e5", dimensions=8).value == [0.6, 0.8]
    assert [json.loads(body).get("dimensions", 0) for _, _, body in server.requests] == asked


def test_an_image_is_drawn_in_the_size_asked_for(openai: OpenAIClient) -> None:
    drawn = openai.draw("a man with grey hair", model="gpt-image-2.5-flare", size="256x384", quality="low")
    with Image.open(io.BytesIO(drawn.value)) as image:
        assert (image.size, image.format) == ((256, 384), "PNG")
    assert drawn.usage.output_tokens > 0
    assert drawn.usage.standin


def test_an_image_is_drawn_anew_from_another(openai: OpenAIClient, photo: bytes) -> None:
    drawn = openai.draw("again", photo, model="gpt-image-2.5-flare", size="64x64")
    assert drawn.value.startswith(b"\x89PNG")
    assert drawn.usage.input_image_tokens == 388


def test_image_data_that_is_cut_off_is_noticed(openai: OpenAIClient, standins: StandInAccess) -> None:
    standins.fault("openai", "truncated_base64")
    with pytest.raises(UnreadableAnswer, match="cut off") as raised:
        openai.draw("a face", model="gpt-image-2.5-flare", size="64x64")
    assert raised.value.usage is not None
    assert raised.value.usage.output_tokens > 0, "it was paid for"


@pytest.mark.parametrize("score", ["97.3", "1.001", "-0.01", "NaN", "null", '"0.9"', "1.0000001192"])
def test_one_score_that_is_no_number_from_0_to_1_makes_a_verdict_unreadable(score: str) -> None:
    body = f'{{"results": [{{"category_scores": {{"violence": 0.4, "sexual": {score}}}}}]}}'.encode()
    with asking(always(body), OpenAIClient) as (client, _):
        if score == "1.0000001192":  # 1 as a rounded float
            assert client.judge("?", model="m").value == {"violence": 0.4, "sexual": 1.0}
        else:
            with pytest.raises(UnreadableAnswer, match="sexual"):
                client.judge("?", model="m")
