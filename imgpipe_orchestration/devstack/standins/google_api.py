"""Google Vision's `images:annotate`: colours are measured, what would need a model is derived from them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from starlette.responses import JSONResponse, Response

from imgpipe_orchestration.devstack.standins.control import Kind
from imgpipe_orchestration.devstack.standins.fill import Facts
from imgpipe_orchestration.devstack.standins.measure import Measured, measure
from imgpipe_orchestration.devstack.standins.moderation import likelihoods
from imgpipe_orchestration.devstack.standins.wire import Asked, Provider

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
_THINGS = ("Art", "Tool", "Vehicle", "Plant", "Textile", "Furniture", "Food", "Building")


def error(status: int, code: str, message: str) -> dict[str, Any]:
    """The shape of Google's errors."""
    reason = {"reason": code.upper(), "domain": "vision.googleapis.com"}
    name = _STATUS.get(status, "UNKNOWN")
    return {"error": {"code": status, "message": message, "status": name, "details": [reason]}, "standin": True}


PROVIDER = Provider("google", error)


async def annotate(asked: Asked) -> Response:
    """POST /v1/images:annotate."""
    key = asked.request.headers.get("x-goog-api-key") or asked.request.query_params.get("key")
    if not key:
        return JSONResponse(error(403, "missing_key", "The request is missing a valid API key."), 403)
    try:
        requests = [dict(request) for request in json.loads(asked.body)["requests"]]
    except (ValueError, KeyError, TypeError):
        return JSONResponse(error(400, "bad_request", "Invalid JSON payload received."), 400)
    if len(requests) > _MOST_IMAGES:
        return JSONResponse(error(400, "too_many", "Too many images per request."), 400)
    if asked.spoils(Kind.ERROR_IN_200):
        status = {"code": 14, "message": "The service is currently unavailable (seeded fault)."}
        return JSONResponse({"responses": [{"error": status} for _ in requests], "standin": True})
    asked.call.model = "vision-v1"
    return JSONResponse({"responses": [_annotated(request) for request in requests], "standin": True})


def _annotated(request: dict[str, Any]) -> dict[str, Any]:
    try:
        image = base64.b64decode(request["image"]["content"], validate=True)
    except (KeyError, ValueError, TypeError):
        return {"error": {"code": 3, "message": "Bad image data."}}
    measured = measure(image)
    if measured is None or not image.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF")):
        return {"error": {"code": 3, "message": "Bad image data."}}
    facts = Facts(measured.digest, measured)
    answer: dict[str, Any] = {}
    for feature in request.get("features", []):
        make = _FEATURES.get(feature.get("type", ""))
        if make is not None:
            answer |= make(measured, facts)
        elif feature.get("type") == "SAFE_SEARCH_DETECTION":
            answer["safeSearchAnnotation"] = likelihoods(image)
    return answer


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


def _properties(measured: Measured, _: Facts) -> dict[str, Any]:
    colours = [
        {
            "color": {name: value for name, value in zip(("red", "green", "blue"), colour, strict=True) if value},
            "score": round(share, 4),
            "pixelFraction": round(share, 4),
        }
        for colour, share in measured.colours
    ]
    return {"imagePropertiesAnnotation": {"dominantColors": {"colors": colours}}}


def _nothing(_: Measured, __: Facts) -> dict[str, Any]:
    """Text, logos, faces and the crops that keep them would need a model: the real API leaves out what it did not find,
    and so do we. A made-up crop hint would have heads cut off that the image engine finds by itself."""
    return {}


def _vertex(x: float, y: float) -> dict[str, float]:
    """Zero coordinates are left out, as protobuf's JSON does."""
    return {name: round(value, 6) for name, value in (("x", x), ("y", y)) if value}


_FEATURES: dict[str, Callable[[Measured, Facts], dict[str, Any]]] = {
    "LABEL_DETECTION": _labels,
    "OBJECT_LOCALIZATION": _objects,
    "IMAGE_PROPERTIES": _properties,
    "CROP_HINTS": _nothing,
    "TEXT_DETECTION": _nothing,
    "LOGO_DETECTION": _nothing,
    "FACE_DETECTION": _nothing,
}
