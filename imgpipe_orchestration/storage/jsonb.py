"""Text and JSON that PostgreSQL accepts.

It refuses NUL characters, unpaired surrogates and, in `jsonb`, NaN and infinities
(https://www.postgresql.org/docs/16/datatype-json.html). File names, models and OCR sometimes contain them, and a paid
answer must not be lost for one.
"""

import json
import math
from typing import Any


def storable(value: Any) -> Any:
    """The value without NULs, with U+FFFD for unpaired surrogates and null for NaN and infinities."""
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
    return json.dumps(storable(value), allow_nan=False)


def storable_text(text: str) -> str:
    """The text without NULs, with U+FFFD for unpaired surrogates."""
    if text.isascii():
        return text.replace("\0", "")
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
