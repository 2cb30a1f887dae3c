"""A JSON value for any JSON Schema (as OpenAI's strict mode allows), made from measurements and stable hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
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
_DECIMALS = 4


@dataclass(frozen=True)
class Facts:
    """What answers are made from: a seed and, where an image was sent, what was measured on it."""

    seed: bytes
    image: Measured | None = None

    def number(self, *path: str) -> float:
        """A stable number of 0 to 1 for this place in the answer."""
        digest = hashlib.sha256(self.seed + "/".join(path).encode()).digest()
        return int.from_bytes(digest[:6], "big") / 2**48

    def pick(self, choices: tuple[Any, ...] | list[Any], *path: str) -> Any:
        return choices[int(self.number(*path) * len(choices)) % len(choices)]


def fill(schema: Mapping[str, Any], facts: Facts) -> Any:
    """A value that is valid for `schema`.

    Understands type, properties, items, enum, const, anyOf, $ref into $defs, minItems, minimum and maximum (exclusive
    ones too), minLength and maxLength; that is what Pydantic models in strict mode turn into.
    """
    return _fill(schema, schema, facts, ())


def _fill(schema: Mapping[str, Any], root: Mapping[str, Any], facts: Facts, path: tuple[str, ...]) -> Any:
    schema = _resolved(schema, root)
    if len(path) > _DEPTH_LIMIT:
        return None
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return facts.pick(list(schema["enum"]), *path)
    return _by_type(schema, root, facts, path)


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema behind $ref and anyOf; of alternatives the first that is not null."""
    if "$ref" in schema:
        target: Any = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return _resolved(target, root)
    if options := schema.get("anyOf"):
        return _resolved(next((option for option in options if option.get("type") != "null"), options[0]), root)
    return schema


def _by_type(schema: Mapping[str, Any], root: Mapping[str, Any], facts: Facts, path: tuple[str, ...]) -> Any:
    kind = schema.get("type", "string")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _fill(inner, root, facts, (*path, name)) for name, inner in properties.items()}
    if kind == "array":
        return _array(schema, root, facts, path)
    if kind in ("integer", "number"):
        return _number(schema, facts, path, whole=kind == "integer")
    if kind == "boolean":
        return facts.number(*path) < 0.5
    if kind == "null":
        return None
    return _string(schema, facts, path)


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], facts: Facts, path: tuple[str, ...]) -> list[Any]:
    least, most = int(schema.get("minItems", 0)), int(schema.get("maxItems", 1000))
    count = min(most, max(least, 2))
    if facts.image is not None and "colo" in (path[-1] if path else ""):
        count = min(most, max(least, len(facts.image.colours)))
    return [_fill(schema.get("items", {}), root, facts, (*path, str(i))) for i in range(count)]


_EDGES = {
    **dict.fromkeys(("left", "x", "x0", "xmin", "x_min"), ("x", -0.15)),
    **dict.fromkeys(("right", "x1", "xmax", "x_max", "x2"), ("x", 0.15)),
    **dict.fromkeys(("top", "y", "y0", "ymin", "y_min"), ("y", -0.15)),
    **dict.fromkeys(("bottom", "y1", "ymax", "y_max", "y2"), ("y", 0.15)),
}


def _number(schema: Mapping[str, Any], facts: Facts, path: tuple[str, ...], *, whole: bool) -> float | int:
    """A measured figure where the name asks for one; boxes lie around the busiest part of the image."""
    name = path[-1].lower() if path else ""
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0)))
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", 100 if whole else 1)))
    share = facts.number(*path)
    if facts.image is not None:
        if name in _EDGES:
            axis, offset = _EDGES[name]
            share = facts.image.busiest[0 if axis == "x" else 1] + offset
        elif name in ("width", "height", "w", "h"):
            share = 0.3
        elif "quality" in name or "sharp" in name:
            share = 0.4 + 0.6 * facts.image.sharpness
        elif "bright" in name or "exposure" in name:
            share = facts.image.brightness
    if "confidence" in name:
        share = 0.6 + 0.35 * share
    step = 1 if whole else 10**-_DECIMALS
    least = low + step if "exclusiveMinimum" in schema else low
    most = high - step if "exclusiveMaximum" in schema else high
    value = min(most, max(least, low + share * (high - low)))
    return round(value) if whole else round(value, _DECIMALS)


def _string(schema: Mapping[str, Any], facts: Facts, path: tuple[str, ...]) -> str:
    text = _words(schema, facts, path)
    least, most = int(schema.get("minLength", 0)), int(schema.get("maxLength", 100_000))
    return text.ljust(least, ".")[:most]


def _words(schema: Mapping[str, Any], facts: Facts, path: tuple[str, ...]) -> str:
    names = [step.lower() for step in path if not step.isdigit()]
    name = names[-1] if names else ""
    index = next((int(step) for step in reversed(path) if step.isdigit()), 0)
    image = facts.image
    if image is not None and ("colo" in name or "hex" in name or "#" in str(schema.get("pattern", ""))):
        return image.hexes[index % len(image.hexes)]
    for word, choices in _WORDS.items():
        if word in name:
            first = int(facts.number(*names) * len(choices))
            return choices[(first + index) % len(choices)]  # the words of one list differ
    if image is None:
        return f"Stand-in text {facts.number(*path):.4f} for {name or 'the answer'}"
    tone = "A bright" if image.brightness > 0.55 else "A dark" if image.brightness < 0.3 else "An evenly lit"
    mostly = f", mostly {image.colour_name}" if image.colour_name else ""
    return f"{tone}{mostly} {image.orientation} image (stand-in)"
