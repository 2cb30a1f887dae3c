"""Chat servers of all abilities: each gets the strictest form that it knows, and one question more if it errs."""

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pydantic import BaseModel

from imgpipe_orchestration.errors import (
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.openai import Query
from imgpipe_orchestration.partners.openai_chat import OpenAIChatClient
from imgpipe_orchestration_tests.partners.conftest import asking
from imgpipe_orchestration_tests.partners.wire import Behaviour, Server, reply


class Look(BaseModel):
    style: str
    quality: int


def said(text: str | None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}, **more}
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def answering(*answers: dict[str, Any], knows: tuple[str, ...] = ("json_schema", "json_object", "text")) -> Behaviour:
    """A server that knows some forms of answer and gives these in turn, the last one again and again."""
    given = iter(answers)
    last = [answers[-1]]

    def behave(handler: BaseHTTPRequestHandler, _: int) -> None:
        asked: bytes = handler.sent  # type: ignore[attr-defined]  # by `serving`
        form = json.loads(asked).get("response_format", {}).get("type", "text")
        if form not in knows:
            body = {"error": {"message": f"response_format {form} is not supported", "type": "invalid_request_error"}}
            reply(handler, json.dumps(body).encode(), 400, Content_Type="application/json")
            return
        last[0] = next(given, last[0])
        reply(handler, json.dumps(last[0]).encode(), Content_Type="application/json")

    return behave


def forms(server: Server) -> list[str]:
    bodies = [json.loads(body) for _, _, body in server.requests]
    return [body.get("response_format", {}).get("type", "text") for body in bodies]


GOOD = said('{"style": "oil", "quality": 7}')


@pytest.mark.parametrize(
    ("knows", "tried"),
    [
        (("json_schema", "json_object", "text"), ["json_schema"]),
        (("json_object", "text"), ["json_schema", "json_object"]),
        (("text",), ["json_schema", "json_object", "text"]),
    ],
)
def test_each_server_gets_the_strictest_form_it_knows_and_is_not_asked_for_another_again(
    knows: tuple[str, ...], tried: list[str], photo: bytes
) -> None:
    with asking(answering(GOOD, knows=knows), OpenAIChatClient) as (client, server):
        seen = client.answer(Query("What is it?", Look, photo, instructions="Be brief."), model="m")
        assert (seen.value, seen.usage.input_tokens, seen.usage.output_tokens) == (Look(style="oil", quality=7), 10, 5)
        assert forms(server) == tried
        client.answer(Query("And this?", Look), model="m")
        assert forms(server) == [*tried, tried[-1]]
    content = json.loads(server.requests[0][2])["messages"][-1]["content"]
    assert content[1]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    if tried[-1] == "text":
        assert '"quality"' in json.loads(server.requests[-1][2])["messages"][0]["content"], (
            "the schema is told in words"
        )


def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_both_are_charged() -> None:
    first = said('Sure! {"style": "oil", "quality": "very good"}')
    with asking(answering(first, GOOD, knows=("text",)), OpenAIChatClient) as (client, server):
        seen = client.answer(Query("What is it?", Look), model="m")
    assert seen.value.quality == 7 and seen.usage.input_tokens == 20
    repair = json.loads(server.requests[-1][2])["messages"][-1]["content"]
    assert "quality" in repair


def test_an_answer_in_parts_is_what_they_say_without_the_thoughts() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": '{"style": "?'}]}]
    parts += [{"type": "text", "text": '{"style": "oil", '}, {"type": "text", "text": '"quality": 7}'}]
    with asking(answering(said(None, message={"content": parts})), OpenAIChatClient) as (client, server):
        assert client.answer(Query("What is it?", Look), model="m").value == Look(style="oil", quality=7)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("second", "tokens"),
    [
        (said('{"style', finish_reason="length"), 20),
        (said("", finish_reason="content_filter"), 20),
        ({"error": {"code": 429, "message": "slower"}, "choices": None}, 10),
    ],
)
def test_where_the_second_question_fails_both_answers_are_charged(second: dict[str, Any], tokens: int) -> None:
    lying = asking(answering(said("{"), second), OpenAIChatClient)
    with lying as (client, server), pytest.raises(ImgpipeError) as caught:
        client.answer(Query("What is it?", Look), model="m")
    assert len(server.requests) == 2
    assert (caught.value.usage.model, caught.value.usage.input_tokens) == ("m", tokens)


LIES: dict[str, tuple[dict[str, Any], type[ImgpipeError], str]] = {
    "a field is missing, twice": (said('{"style": "oil"}'), UnreadableAnswer, "quality"),
    "prose, twice": (said("What a lovely picture."), UnreadableAnswer, "twice"),
    "no choice": (said("") | {"choices": []}, UnreadableAnswer, "without text"),
    "no text": (said(None), UnreadableAnswer, "without text"),
    "cut off": (said('{"style', finish_reason="length"), UnreadableAnswer, "cut off"),
    "filtered": (said("", finish_reason="content_filter"), PartnerRefused, "refused"),
    "refused": (said(None, message={"content": None, "refusal": "No."}), PartnerRefused, "refused"),
    "an error in a choice": (said("", error={"code": 502, "message": "no"}), PartnerUnavailable, "while answering"),
    "an error in a 200": ({"error": {"code": 402, "message": "no credit"}}, SpendingPaused, "quota"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_chat_server_that_lies(lie: str) -> None:
    answer, kind, told = LIES[lie]
    lying = asking(answering(answer), OpenAIChatClient)
    with lying as (client, server), pytest.raises(kind, match=told) as caught:
        client.answer(Query("What is it?", Look), model="m")
    assert len(server.requests) <= (2 if kind is UnreadableAnswer else 1)
    if kind is UnreadableAnswer:
        assert caught.value.usage is not None, "it was charged"
