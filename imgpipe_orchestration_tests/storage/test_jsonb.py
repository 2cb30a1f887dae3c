"""Whatever a model writes, PostgreSQL takes it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from imgpipe_orchestration.storage.jsonb import dumps, storable

CLEAN = {"text": "grün 🎨 \\u0000 \n", "scores": [1, 0.5, None, True], "nested": {"a": {"b": []}}}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(min_codepoint=0)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def test_what_is_fine_is_left_alone() -> None:
    assert storable(CLEAN) == CLEAN
    assert json.loads(dumps(CLEAN)) == CLEAN


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("a\0b", "ab"),
        ("\ud83c", "\ufffd"),
        ("ok \udfff end", "ok \ufffd end"),
        (float("nan"), None),
        (float("-inf"), None),
        ({"k\0": "v\0"}, {"k": "v"}),
        ((1, "\0"), [1, ""]),
    ],
)
def test_what_is_not_is_mended(given_: object, kept: object) -> None:
    assert storable(given_) == kept


def test_postgresql_takes_anything_that_python_can_hold(engine: Engine) -> None:
    @given(anything)
    def round_trip(value: object) -> None:
        with engine.connect() as connection:
            connection.execute(text("select cast(:v as jsonb)"), {"v": dumps(value)}).scalar_one()

    round_trip()
