"""JSON that others wrote, however deeply it is nested.

Python reads JSON until its stack is full, and an object that the collector happens to finalize at that depth never gets
finalized: so the nesting is bounded before reading.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate, islice
from typing import Any

DEEPEST = 200
"""Levels of arrays and objects that are read: what Pydantic's own reader takes. No contract here has more than ten."""

_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)```", re.DOTALL)
_START = re.compile(r'\[(?=\s*[\[{"])|\{(?=\s*["}])')
"""How an array of texts, objects or arrays begins, or an object: "[1]" in prose is a footnote or a number of people."""
_MOST_STARTS = 100
"""Brackets in a text of which each is tried as the beginning of JSON."""


def decoded(written: str | bytes) -> Any:
    """The value of a JSON text; bytes are UTF-8, UTF-16 or UTF-32, with a mark or without.

    Raises:
        ValueError: it is not JSON, or is nested deeper than `DEEPEST`.
        UnicodeDecodeError: the bytes are in another encoding (a ValueError as well).
    """
    text = written if isinstance(written, str) else written.decode(json.detect_encoding(written), "surrogatepass")
    refuse_deep(text)
    return json.loads(text)


def decoded_at(text: str, start: int) -> Any:
    """The value of the JSON that begins at `start`; what comes after it does not matter.

    Raises:
        ValueError: none begins there, or what follows is nested deeper than `DEEPEST`.
    """
    refuse_deep(text[start:])
    return json.JSONDecoder().raw_decode(text, start)[0]


def json_in(text: str) -> Any:
    """JSON as a model writes it: it is the text, is fenced in it, or is the first array or object in it.

    Raises:
        ValueError: none of these.
    """
    for candidate in (text.strip(), *(match.strip() for match in _FENCE.findall(text))):
        try:
            return decoded(candidate)
        except ValueError:
            continue
    # Prose comes before it, perhaps with brackets of its own.
    for start in islice(_START.finditer(text), _MOST_STARTS):
        try:
            return decoded_at(text, start.start())
        except ValueError:
            continue
    raise ValueError("the text holds no JSON")


def refuse_deep(text: str) -> None:
    """Raise for JSON nested deeper than `DEEPEST`.

    Raises:
        ValueError: it is.
    """
    if text.count("[") + text.count("{") <= DEEPEST:
        return
    steps = filter(None, map(_STEP.get, _TEXT.sub("", text)))
    if any(depth > DEEPEST for depth in accumulate(steps)):
        raise ValueError("the JSON is nested too deeply")
