"""The forms of an image's page in which people correct an analysis: one a field, made from the schema of `Correction`.

A list has a line for each entry, and an entry of several parts is written `cat | 0.98 | 0.1 0.2 0.5 0.8`.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from imgpipe_orchestration.media.analyses import Correction

_LABELS = {
    "alt_text": "Alternative text",
    "subject": "Subject",
    "style": "Style",
    "medium": "Medium",
    "mood_keywords": "Mood",
    "brand_name": "Brand",
    "brand_colors": "Brand colours",
    "detected_text": "Text in the picture",
    "detected_objects": "Objects",
    "dominant_colors": "Colours",
    "quality_score": "Quality",
    "confidence_score": "Confidence",
    "site_context.content_kind": "Good for",
    "site_context.owner_fit": "Fits its owner",
    "site_context.owner_fit_reason": "Why",
    "site_context.seo_alt_text": "For search engines",
}
"""In the order of the page. What is within `site_context` is corrected by itself, where a model gave it."""


class Field(NamedTuple):
    """One field: its value, that as text, the JSON schema of its type, and who corrected it."""

    name: str
    label: str
    value: Any
    text: str
    schema: Mapping[str, Any]
    by: str | None


def fields_of(analysis: Mapping[str, Any]) -> list[Field]:
    """All that can be corrected of an analysis as `public_analysis` returns it."""
    found = []
    for name, label in _LABELS.items():
        whole, _, part = name.partition(".")
        value: Any = analysis.get(whole)
        if not part or value is not None:
            value = value[part] if part else value
            by = analysis.get("corrected", {}).get(whole, {}).get("by")
            schema = _schema(name)
            found.append(Field(name, label, value, _text(value, _parts(schema)), schema, by))
    return found


def corrected(name: str, text: str, analysis: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Correction` that sets a field to what was written.

    Raises:
        ValueError: there is no such field, or that is no value of its type.
    """
    if name not in _LABELS:
        raise ValueError(f"there is no field {name}")
    whole, _, part = name.partition(".")
    value = _value(_schema(name), text.replace("\r\n", "\n"))
    fields = {whole: {**(analysis.get(whole) or {}), part: value} if part else value}
    return Correction.model_validate(fields, strict=False).given()  # numbers are texts here


@cache
def _schema(name: str) -> dict[str, Any]:
    schema = Correction.model_json_schema()
    found = schema
    for step in name.split("."):
        found = _resolved(found["properties"][step], schema["$defs"])
    return found


def _resolved(schema: Any, types: Mapping[str, Any]) -> Any:
    """Without references and without the null that every field may be."""
    if "anyOf" in schema:
        return _resolved(schema["anyOf"][0], types)
    if "$ref" in schema:
        return _resolved(types[schema["$ref"].rpartition("/")[2]], types)
    return schema | ({"items": _resolved(schema["items"], types)} if "items" in schema else {})


def _parts(schema: Mapping[str, Any]) -> list[str]:
    """The parts of a list's entry in the order in which they are written: the database has another one."""
    return list(schema.get("items", {}).get("properties", ()))


def _text(value: Any, parts: list[str], between: str = "\n") -> str:
    if isinstance(value, list):
        return between.join(_text(one, parts, " ") for one in value)
    if isinstance(value, dict):
        return " | ".join(_text(value[part], [], " ") for part in parts if value.get(part) is not None)
    return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)


def _value(schema: Mapping[str, Any], text: str) -> Any:
    if schema["type"] != "array":
        return text
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    parts = _parts(schema)
    if not parts:
        return lines
    entries = [zip(parts, (part.strip() for part in line.split("|")), strict=False) for line in lines]
    return [{name: part.split() if name == "box" else part for name, part in entry} for entry in entries]
