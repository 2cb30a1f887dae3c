"""Texts and JSON that PostgreSQL will take.

It refuses what file names bring and what models and OCR write now and then: the character NUL, half of a surrogate
pair, and in `jsonb` NaN and infinities (https://www.postgresql.org/docs/16/datatype-json.html). An answer that was
paid for must not be lost over one of them.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

_ESCAPED = re.compile(r"\\u(0000|d[89a-f])")
"""NUL and halves of pairs in JSON text, which is ASCII. Whole pairs are among them, which costs time and no more."""


def storable(value: Any) -> Any:
    """The value without NULs, with half pairs replaced by U+FFFD, and with null for NaN and the infinities."""
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable_text(str(key)): storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [storable(item) for item in value]
    return value


def dumps(value: Any) -> str:
    """`value` as JSON text for a jsonb column."""
    try:
        written = json.dumps(value, allow_nan=False)
    except (ValueError, TypeError):  # a number that is none, a key that is no text
        return json.dumps(storable(value), allow_nan=False)
    # To look through the text costs a twentieth of looking through the value, and hardly any needs it.
    return json.dumps(storable(value), allow_nan=False) if _ESCAPED.search(written) else written


def storable_text(text: str) -> str:
    """The text without NULs, with half pairs replaced by U+FFFD."""
    if text.isascii():
        return text.replace("\0", "")
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def escaped(text: str) -> str:
    """The text without NULs, for a value that must come out as it was; `unescaped` gives it back."""
    return text.replace("\\", "\\\\").replace("\0", "\\0")


def unescaped(text: str) -> str:
    """The text that was `escaped`."""
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))
