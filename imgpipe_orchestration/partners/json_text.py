"""Untrusted JSON: limits on its nesting, and JSON within a text.

Python parses nested JSON until the stack is full. An object that the garbage collector happens to finalize at that
depth is never finalized, so the nesting is checked before parsing.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import accumulate, islice
from typing import Any, TypeVar

from pydantic import ValidationError

Fitted = TypeVar("Fitted")

DEEPEST = 200
"""Most levels of arrays and objects, as in Pydantic's own parser. No contract here has more than ten."""

_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_FENCE = re.compile(r"```[a-zA-Z]*[^\S\n]*\n(.*?)```", re.DOTALL)
_START = re.compile(r'\[(?=\s*[\[{"])|\{(?=\s*["}])')
"""The beginning of an object, or of an array of strings, objects or arrays; "[1]" in prose may be a footnote."""
_MOST_STARTS = 100
"""How many such beginnings in a text are tried."""


def decoded(written: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        ValueError: it is not JSON, or is nested deeper than `DEEPEST`.
        UnicodeDecodeError: the bytes are in another encoding (a ValueError as well).
    """
    text = written if isinstance(written, str) else written.decode(json.detect_encoding(written), "surrogatepass")
    refuse_deep(text)
    return json.loads(text)


def values_in(text: str) -> Iterator[Any]:
    """The JSON values in a model's answer: the whole text, each Markdown fence in it, each array or object in it.

    There may be prose between them, with brackets of its own, and examples before what was asked for.
    """
    for candidate in (text.strip(), *(match.strip() for match in _FENCE.findall(text))):
        with suppress(ValueError):
            yield decoded(candidate)
    end = 0
    for start in islice(_START.finditer(text), _MOST_STARTS):
        if start.start() >= end:  # what is within a value is a part of it
            with suppress(ValueError):
                refuse_deep(text[start.start() :])
                value, end = json.JSONDecoder().raw_decode(text, start.start())
                yield value


def fitting(values: Iterable[Any], fit: Callable[[Any], Fitted]) -> Fitted:
    """The first of a model's values that fits, as `fit` returns it.

    Raises:
        ValueError: what was wrong with the first value, or that there is none.
    """
    first: ValueError | None = None
    for value in values:
        try:
            return fit(value)
        except ValueError as error:
            first = first or error
    raise first or ValueError("the text holds no JSON")


def problem_in(error: ValueError, most: int = 5) -> str:
    """What did not fit, each field named: the first few, short enough for a prompt and a log line."""
    if not isinstance(error, ValidationError):
        return str(error)
    faults = error.errors(include_url=False, include_input=False, include_context=False)[:most]
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'answer'}: {fault['msg']}" for fault in faults)


def refuse_deep(text: str) -> None:
    """
    Raises:
        ValueError: the JSON is nested deeper than `DEEPEST`.
    """
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    steps = filter(None, map(_STEP.get, _TEXT.sub("", text)))
    if any(depth > DEEPEST for depth in accumulate(steps)):
        raise ValueError("the JSON is nested too deeply")
