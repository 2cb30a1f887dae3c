"""A JSON value for any JSON Schema (as OpenAI's strict mode allows), made from measurements and stable hashes."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imgpipe_orchestration.devstack.standins.measure import Measured

_WORDS = {
    "style": ("Abstract Expressionist", "Impressionist", "Minimalist", "Realist", "Pop Art", "Documentary"),
    "medium": ("Photograph", "Oil on canvas", "Watercolour", "Digital", "Ink on paper"),
    "mood": ("calm", "vibrant", "energetic", "serene", "dramatic", "playful", "warm", "cool"),
    "subject": ("a still life", "a landscape", "a figure", "an abstract composition", "an object"),
    "brand": ("Stand-in Brand",),
}
_DEPTH_LIMIT = 12


@dataclass(frozen=True)
class Facts:
    """What answers are made from: a seed and, where an image was sent, what was measured on it."""

    seed: bytes
    image: Measured | None = None

    def number(self, *path: str) -> float:
        """A stable number of 0 to 1 for this place in the answer."""
        digest = hashlib.sha256(self.seed + "/".join(path).encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def pick(self, choices: Sequence[Any], *path: str) -> Any:
        return choices[int(self.number(*path) * len(choices))]


def fill(schema: Mapping[str, Any], facts: Facts) -> Any:
    """A value that is valid for `schema`.

    Understands type, properties, items, enum, const, anyOf, $ref into $defs, minItems, minimum and maximum (exclusive
    ones too), minLength and maxLength; that is what Pydantic models in strict mode turn into.
    """
    return _fill(schema, schema.get("$defs", {}), facts, ())


def _fill(schema: Mapping[str, Any], defs: Mapping[str, Any], facts: Facts, path: tuple[str, ...]) -> Any:
    while "$ref" in schema or "anyOf" in schema:
        if "$ref" in schema:
            schema = defs[schema["$ref"].rpartition("/")[2]]
        else:
            schema = next((one for one in schema["anyOf"] if one.get("type") != "null"), schema["anyOf"][0])
    kind = schema.get("type", "string")
    value: Any = None  # of null, and of what contains itself, at some depth
    if choices := [schema["const"]] if "const" in schema else schema.get("enum"):
        value = facts.pick(choices, *path)
    elif kind == "object" and len(path) < _DEPTH_LIMIT:
        found = schema.get("properties", {}).items()
        value = {name: _fill(inner, defs, facts, (*path, name)) for name, inner in found}
    elif kind == "array" and len(path) < _DEPTH_LIMIT:
        wanted = len(facts.image.hexes) if facts.image and path and "colo" in path[-1] else 2
        count = min(schema.get("maxItems", 1000), max(schema.get("minItems", 0), wanted))
        value = [_fill(schema.get("items", {}), defs, facts, (*path, str(i))) for i in range(count)]
    elif kind in ("integer", "number"):
        value = _number(schema, facts, path, whole=kind == "integer")
    elif kind == "boolean":
        value = facts.number(*path) < 0.5
    elif kind == "string":
        value = _words(facts, path).ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
    return value


def _number(schema: Mapping[str, Any], facts: Facts, path: tuple[str, ...], *, whole: bool) -> float | int:
    """Confidence and quality are never low, for nobody acts on what is."""
    step, usual, digits = (1, 100, 0) if whole else (1e-4, 1, 4)
    low = float(schema["exclusiveMinimum"] + step if "exclusiveMinimum" in schema else schema.get("minimum", 0))
    high = float(schema["exclusiveMaximum"] - step if "exclusiveMaximum" in schema else schema.get("maximum", usual))
    name, share = path[-1].lower() if path else "", facts.number(*path)
    if "confidence" in name or "quality" in name:
        share = 0.6 + 0.35 * share
    value = round(min(high, max(low, low + share * (high - low))), digits)
    return int(value) if whole else value


def _words(facts: Facts, path: tuple[str, ...]) -> str:
    names = [step.lower() for step in path if not step.isdigit()]
    name = names[-1] if names else ""
    index = next((int(step) for step in reversed(path) if step.isdigit()), 0)
    if facts.image is not None and ("colo" in name or "hex" in name):
        return facts.image.hexes[index % len(facts.image.hexes)]
    for word, choices in _WORDS.items():
        if word in name:
            first = int(facts.number(*names) * len(choices))
            return choices[(first + index) % len(choices)]  # the words of one list differ
    if facts.image is None:
        return f"Stand-in text {facts.number(*path):.4f} for {name or 'the answer'}"
    return f"{facts.image.words} image (stand-in)"
