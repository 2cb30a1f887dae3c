"""Answers follow the schema, whatever it is."""

from __future__ import annotations

import io
from enum import Enum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from PIL import Image
from pydantic import BaseModel, Field

from imgpipe_orchestration.devstack.standins.fill import Facts, fill
from imgpipe_orchestration.devstack.standins.measure import Measured, measure


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (300, 200)) -> Measured:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    measured = measure(buffer.getvalue())
    assert measured is not None
    return measured


class Severity(Enum):
    LOW = "low"
    HIGH = "high"


class Box(BaseModel):
    x: float = Field(ge=0, le=1)
    y: float = Field(ge=0, le=1)
    width: float = Field(ge=0, le=1)
    height: float = Field(ge=0, le=1)


class Finding(BaseModel):
    title: str = Field(min_length=3, max_length=20)
    severity: Severity
    confidence: float = Field(ge=0, le=1)
    evidence: Box | None
    tags: list[Literal["a", "b"]] = Field(min_length=1, max_length=1)


class Report(BaseModel):
    kind: Literal["report"]
    findings: list[Finding] = Field(min_length=3)
    quality_score: int = Field(ge=0, le=100)
    brand_colors: list[str]
    is_fit: bool
    share: float = Field(gt=0, lt=1)
    note: str | None


@given(st.binary(min_size=1, max_size=16), st.booleans())
def test_a_pydantic_model_is_satisfied_by_its_own_schema(seed: bytes, with_image: bool) -> None:
    facts = Facts(seed, picture((200, 30, 30)) if with_image else None)
    report = Report.model_validate(fill(to_strict_json_schema(Report), facts))
    assert len(report.findings) == 3


@pytest.mark.parametrize("kind, within", [("number", (0, 0.0003)), ("integer", (0, 3))])
def test_a_bound_that_is_excluded_is_not_reached(kind: str, within: tuple[float, float]) -> None:
    schema = {"type": kind, "exclusiveMinimum": within[0], "exclusiveMaximum": within[1]}
    values = {fill(schema, Facts(bytes([seed]))) for seed in range(100)}
    assert all(within[0] < value < within[1] for value in values)
    assert len(values) == 2


def test_colours_and_quality_are_measured() -> None:
    report = Report.model_validate(fill(to_strict_json_schema(Report), Facts(b"x", picture((200, 30, 30)))))
    assert report.brand_colors == ["#c81e1e"]
    assert report.quality_score == 40, "a flat area: no sharpness at all"


@pytest.mark.parametrize(
    "colour, name",
    [
        ((150, 112, 86), "brown"),  # most of the demo's cat
        ((208, 78, 55), "red"),
        ((190, 150, 40), "yellow"),
        ((225, 180, 150), "beige"),
        ((135, 190, 235), "blue"),
        ((20, 60, 30), "green"),
        ((240, 150, 170), "pink"),
        ((255, 0, 20), "red"),
        ((244, 241, 234), "white"),
        ((205, 205, 205), "light grey"),
        ((17, 18, 18), "black"),
    ],
)
def test_a_colour_has_the_name_that_people_give_it(colour: tuple[int, int, int], name: str) -> None:
    assert picture(colour).colour_name == name


def test_a_picture_of_many_colours_is_named_after_none_of_them() -> None:
    image = Image.new("RGB", (400, 100))
    for place, colour in enumerate(("#d02020", "#20a040", "#2040d0", "#e0d040")):
        image.paste(colour, (100 * place, 0, 100 * place + 100, 100))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    measured = measure(buffer.getvalue())
    assert measured is not None
    assert measured.colour_name == ""
    assert "mostly" not in str(fill({"type": "string"}, Facts(b"x", measured)))


def test_the_same_seed_gives_the_same_answer() -> None:
    schema: dict[str, Any] = to_strict_json_schema(Report)
    assert fill(schema, Facts(b"one")) == fill(schema, Facts(b"one"))
    assert fill(schema, Facts(b"one")) != fill(schema, Facts(b"two"))


def test_what_is_no_image_is_not_measured() -> None:
    assert measure(b"not an image") is None
    assert measure(b"\xff\xd8\xff" + bytes(50)) is None


def test_a_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    assert isinstance(fill(schema, Facts(b"x")), dict)


def test_the_words_of_a_list_differ() -> None:
    schema = {"type": "object", "properties": {"mood_keywords": {"type": "array", "items": {"type": "string"}}}}
    moods = [fill(schema, Facts(bytes([seed])))["mood_keywords"] for seed in range(100)]
    assert all(len(set(words)) == len(words) == 2 for words in moods)
    assert len({words[0] for words in moods}) > 4
