"""Google Vision's `images:annotate`: colours are measured, what would need a model is derived from them."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.fill import Facts
from imgpipe_orchestration.devstack.standins.measure import Measured, measure, verdict
from imgpipe_orchestration.devstack.standins.refusal import Refusal

_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_MOST_IMAGES = 16
_LIKELIHOODS = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")
_THINGS = ("Art", "Tool", "Vehicle", "Plant", "Textile", "Furniture", "Food", "Building")


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The shape of Google's errors."""
    reason = {"reason": code.upper(), "domain": "vision.googleapis.com"}
    name = _STATUS.get(status, "UNKNOWN")
    return {"error": {"code": status, "message": message, "status": name, "details": [reason]}, "standin": True}


async def annotate(request: Request) -> Response:
    """POST /v1/images:annotate."""
    if not (request.headers.get("x-goog-api-key") or request.query_params.get("key")):
        raise Refusal(403, error(403, "missing_key", "The request is missing a valid API key."))
    try:
        wanted = [dict(one) for one in (await request.json())["requests"]]
    except (ValueError, KeyError, TypeError):
        raise Refusal(400, error(400, "bad_request", "Invalid JSON payload received.")) from None
    if len(wanted) > _MOST_IMAGES:
        raise Refusal(400, error(400, "too_many", "Too many images per request."))
    return JSONResponse({"responses": [_annotated(one) for one in wanted], "standin": True})


def _annotated(request: dict[str, Any]) -> dict[str, Any]:
    try:
        image = base64.b64decode(request["image"]["content"], validate=True)
    except (KeyError, ValueError, TypeError):
        return {"error": {"code": 3, "message": "Bad image data."}}
    measured = measure(image)
    if measured is None or not image.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF")):
        return {"error": {"code": 3, "message": "Bad image data."}}
    facts = Facts(measured.digest, measured)
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "LABEL_DETECTION": lambda: _labels(measured, facts),
        "OBJECT_LOCALIZATION": lambda: _objects(measured, facts),
        "IMAGE_PROPERTIES": lambda: _properties(measured),
        "SAFE_SEARCH_DETECTION": lambda: {"safeSearchAnnotation": _likelihoods(image)},
    }
    # Text, logos, faces and the crops that keep them would need a model: the real API leaves out what it did not find,
    # and so do we. A made-up crop hint would have heads cut off that the image engine finds by itself.
    asked = [feature.get("type", "") for feature in request.get("features", [])]
    return {name: value for kind in asked if kind in makers for name, value in makers[kind]().items()}


def _likelihoods(data: bytes) -> dict[str, str]:
    """Google's words of safe search."""
    scores = verdict(data)
    names = ("adult", "spoof", "medical", "violence", "racy")
    return {name: _LIKELIHOODS[round(4 * scores.get(name, 0.0))] for name in names}


def _labels(measured: Measured, facts: Facts) -> dict[str, Any]:
    found = (measured.colour_name.capitalize(), measured.orientation.capitalize(), facts.pick(_THINGS, "label"))
    names = [name for name in found if name]
    return {
        "labelAnnotations": [
            {"mid": f"/standin/{i}", "description": name, "score": round(0.95 - 0.07 * i, 3), "topicality": 0.9}
            for i, name in enumerate(names)
        ]
    }


def _objects(measured: Measured, facts: Facts) -> dict[str, Any]:
    left, top, right, bottom = measured.object
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    vertices = [_vertex(cx, cy) for cx, cy in corners]
    score = round(0.6 + 0.3 * facts.number("object"), 3)
    thing = {"mid": "/standin/o", "name": facts.pick(_THINGS, "label"), "score": score}
    return {"localizedObjectAnnotations": [{**thing, "boundingPoly": {"normalizedVertices": vertices}}]}


def _properties(measured: Measured) -> dict[str, Any]:
    colours = [
        {
            "color": {name: value for name, value in zip(("red", "green", "blue"), colour, strict=True) if value},
            "score": round(share, 4),
            "pixelFraction": round(share, 4),
        }
        for colour, share in measured.colours
    ]
    return {"imagePropertiesAnnotation": {"dominantColors": {"colors": colours}}}


def _vertex(x: float, y: float) -> dict[str, float]:
    """Zero coordinates are left out, as protobuf's JSON does."""
    return {name: round(value, 6) for name, value in (("x", x), ("y", y)) if value}
