"""Foreign JSON: any encoding Python reads, and no deeper than its stack is sure to bear."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgpipe_orchestration.partners.json_text import DEEPEST, decoded, fitting, refuse_deep, values_in

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def lies(levels: int) -> list[str]:
    """JSON of so many levels in which something looks like more or fewer."""
    return [
        deep(levels),
        "[" + '{"a": ' * (levels - 1) + "1" + "}" * (levels - 1) + "]",
        deep(levels)[:levels] + '"' + "]" * 500 + r"\"" + "[" * 500 + '"' + "]" * levels,
        f"[{'[], ' * 500}{deep(levels - 1)}]",
    ]


@pytest.mark.parametrize("text", lies(DEEPEST))
def test_as_deep_as_it_may_be(text: str) -> None:
    assert decoded(text) == json.loads(text)
    assert next(values_in(f"see [1]: {text}")) == json.loads(text)


@pytest.mark.parametrize("text", [*lies(DEEPEST + 1), "[" * 100_000, '{"a":' * 100_000])
def test_deeper_is_refused_before_it_is_read(text: str) -> None:
    for read in (decoded, refuse_deep):
        with pytest.raises(ValueError, match="nested too deeply") as caught:
            read(text)
        assert caught.value.__context__ is None


def test_a_fence_with_nothing_but_lines_takes_no_time() -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="no JSON"):
        fitting(values_in("```json" + "\n" * 60_000), list)
    assert time.process_time() - started < 2
    assert next(values_in("Here:\n```json  \n\n\n[1]\n```")) == [1]


@given(anything, st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"]))
def test_bytes_in_the_encodings_of_json(value: Any, encoding: str) -> None:
    assert decoded(json.dumps(value, ensure_ascii=False).encode(encoding)) == value
