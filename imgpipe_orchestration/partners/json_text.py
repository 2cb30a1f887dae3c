"""JSON that others wrote, however deep it is nested.

Python reads JSON until its stack is full, and what the collector happens to finalize at that depth never is: nesting is
bounded before reading.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

DEEPEST = 200
"""Levels of arrays and objects that are read: what Pydantic's own reader takes. No contract here has more than ten."""

_TEXT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


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
