"""Untrusted JSON: limits on its nesting, and JSON within a text.

Python parses nested JSON until the stack is full. An object that the garbage collector happens to finalize at that
depth is never finalized, so the nesting is checked before parsing.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate, islice
from typing import Any

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


def decoded_at(text: str, start: int) -> Any:
    """The value of the JSON that begins at `start`; text after it is ignored.

    Raises:
        ValueError: none begins there, or the rest of the text is nested deeper than `DEEPEST`.
    """
    refuse_deep(text[start:])
    return json.JSONDecoder().raw_decode(text, start)[0]


def json_in(text: str) -> Any:
    """The JSON in a model's answer: the whole text, a Markdown fence in it, or the first array or object in it.

    Raises:
        ValueError: there is none.
    """
    for candidate in (text.strip(), *(match.strip() for match in _FENCE.findall(text))):
        try:
            return decoded(candidate)
        except ValueError:
            continue
    # There may be prose before it, with brackets of its own.
    for start in islice(_START.finditer(text), _MOST_STARTS):
        try:
            return decoded_at(text, start.start())
        except ValueError:
            continue
    raise ValueError("the text holds no JSON")


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
