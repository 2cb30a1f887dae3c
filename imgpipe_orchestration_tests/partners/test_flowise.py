"""Flowise's client: the forms an answer takes, and what happens to one that does not fit."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, Field

from imgpipe_orchestration.errors import PartnerAway, UnreadableAnswer
from imgpipe_orchestration.partners.flowise import PROSE, Flowise
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.usage import Priced, Usage
from imgpipe_orchestration_tests.partners.wire import reply, serving


class Persona(BaseModel):
    firstname: str
    lastname: str
    age: int = Field(ge=18, le=99)


ANNA = {"firstname": "Anna", "lastname": "Berg", "age": 30}


def answered(*answers: Any, schema: Any = list[Persona]) -> tuple[Priced[Any], list[Any]]:
    """The prediction made of these answers, one a call, and the questions that were asked."""
    bodies = [json.dumps(answer).encode() for answer in answers]
    with serving(lambda h, number: reply(h, bodies[min(number, len(bodies) - 1)])) as server:
        client = Flowise(server.url, policy=RetryPolicy(attempts=1))
        prediction = client.predict("flow", {"count": 1}, PROSE if schema is str else schema)
        return prediction, [json.loads(body)["question"] for _, _, body in server.requests]


@pytest.mark.parametrize(
    "answer",
    [
        {"json": [ANNA]},
        {"json": json.dumps([ANNA])},
        {"json": [ANNA], "text": "ignored"},
        {"text": json.dumps([ANNA])},
        {"text": f"```json\n{json.dumps([ANNA])}\n```"},
        {"text": f"Sure!\n```\n{json.dumps([ANNA], indent=2)}\n```\nAnything else?"},
        {"text": f"Here you are: {json.dumps([ANNA])} - enjoy"},
        {"text": f"Here they are [as asked]: {json.dumps([ANNA])}"},
        {"text": f"<think>The user wants [1] person {{or more}}.</think>\n{json.dumps([ANNA], indent=2)}"},
        {"text": f"For example {json.dumps(ANNA)} gives\n{json.dumps([ANNA])}"},
        {"text": f'As {{"format": ["name"]}} and ["a", "b"] say:\n```json\n{json.dumps([ANNA])}\n```'},
        {"text": f"```json\n{json.dumps(ANNA)}\n```\nis the form.\n```json\n{json.dumps([ANNA])}\n```"},
        {"json": {}, "text": json.dumps([ANNA])},
        {"json": None, "text": json.dumps([ANNA])},
        [ANNA],
    ],
)
def test_an_answer_is_found_wherever_the_flow_puts_it(answer: Any) -> None:
    prediction, asked = answered(answer)
    assert prediction.value == [Persona(**ANNA)]
    assert (prediction.usage.units, len(asked)) == (1, 1)


def test_an_invalid_answer_is_asked_for_once_more_with_the_reason() -> None:
    prediction, asked = answered({"json": [{**ANNA, "age": 7}]}, {"json": [ANNA]})
    assert prediction.value == [Persona(**ANNA)]
    assert prediction.usage.units == 2
    assert asked[0] == '{"count": 1}'
    again = json.loads(asked[1])  # a flow may parse its question
    assert again["count"] == 1
    assert "0.age" in again["previous_problem"]


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "Once upon a time"},
        {"json": [{"firstname": "Anna"}]},
        {},
        {"text": ""},
        {"text": "[1, 2"},
        {"text": "[" * 100_000},
    ],
)
def test_two_invalid_answers_are_enough_and_both_are_charged(answer: Any) -> None:
    with pytest.raises(UnreadableAnswer, match="twice") as caught:
        answered(answer)
    assert caught.value.usage == Usage(model="flow", units=2)


@pytest.mark.parametrize("schema", [list[Persona], str])
def test_an_answer_without_json_and_text_is_told_with_the_names_of_both(schema: Any) -> None:
    with pytest.raises(UnreadableAnswer, match=r"Flowise flow flow gave .* nothing in `json` or `text`"):
        answered({"json": {}, "chatId": "7"}, schema=schema)


def test_an_invalid_answer_is_charged_also_where_the_next_one_fails() -> None:
    with (
        serving(lambda h, number: reply(h, b"{}", status=500 if number else 200)) as server,
        pytest.raises(PartnerAway) as caught,
    ):
        Flowise(server.url, policy=RetryPolicy(attempts=1)).predict("flow", "?", list[Persona])
    assert caught.value.usage == Usage(model="flow", units=1)


def test_an_answer_of_megabytes_is_not_read() -> None:
    with pytest.raises(UnreadableAnswer, match="more than"):
        answered({"json": [{}] * 1_000_000})


@pytest.mark.parametrize(
    "answer",
    [
        {"text": " a portrait "},
        {"text": '{"prompt": "a portrait"}'},
        {"json": {"prompt": "a portrait"}},
        {"text": '```json\n{"prompt": "a portrait", "negative": "blur"}\n```'},
        {"text": '"a portrait"'},
        {"text": 'Here it is: {"prompt": "a portrait"}'},
        {"json": {"width": 5}, "text": "a portrait"},
    ],
)
def test_prose_comes_as_text_or_as_json_with_one_string(answer: Any) -> None:
    assert answered(answer, schema=str)[0].value == "a portrait"


def test_the_key_is_sent_when_there_is_one_and_only_then() -> None:
    with serving(lambda h, _: reply(h, b'{"json": [1]}')) as server:
        Flowise(server.url, "secret").predict("a/../b", "?", list[int])
        Flowise(server.url).predict("flow", "?", list[int])
        (path, with_key, _), (_, without, _) = server.requests
    assert with_key["authorization"] == "Bearer secret"
    assert "authorization" not in without
    assert path == "/api/v1/prediction/a%2F..%2Fb"
