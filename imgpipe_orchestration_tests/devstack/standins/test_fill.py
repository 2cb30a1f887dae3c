"""Answers follow the schema, whatever it is."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.standins.fill import Facts, fill
from imgpipe_orchestration.devstack.standins.measure import measure

PHOTO = measure(photos.jpeg("coffee"))


class Finding(BaseModel):
    title: str = Field(min_length=3, max_length=20)
    confidence: float = Field(ge=0, le=1)
    left: float | None = Field(ge=0, le=1)
    tags: list[Literal["a", "b"]] = Field(min_length=1, max_length=1)


class Report(BaseModel):
    kind: Literal["report"]
    findings: list[Finding] = Field(min_length=3)
    quality_score: int = Field(ge=0, le=100)
    brand_colors: list[str]
    is_fit: bool
    share: float = Field(gt=0, lt=1)


@given(st.binary(min_size=1, max_size=16), st.booleans())
def test_a_pydantic_model_is_satisfied_by_its_own_schema(seed: bytes, with_image: bool) -> None:
    report = Report.model_validate(fill(to_strict_json_schema(Report), Facts(seed, PHOTO if with_image else None)))
    assert len(report.findings) == 3


@pytest.mark.parametrize("kind, within", [("number", (0, 0.0003)), ("integer", (0, 3))])
def test_a_bound_that_is_excluded_is_not_reached(kind: str, within: tuple[float, float]) -> None:
    schema = {"type": kind, "exclusiveMinimum": within[0], "exclusiveMaximum": within[1]}
    values = {fill(schema, Facts(bytes([seed]))) for seed in range(100)}
    assert all(within[0] < value < within[1] for value in values)
    assert len(values) == 2


def test_a_schema_that_contains_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    schema = {"$ref": "#/$defs/Node", "$defs": {"Node": node}}
    assert isinstance(fill(schema, Facts(b"x")), dict)
