"""Google Vision's `images:annotate`: colours are measured, what would need a model is derived from them."""

import base64
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException
from starlette.requests import Request

from imgpipe_orchestration.devstack.standins import GOOGLE
from imgpipe_orchestration.devstack.standins.fill import Facts
from imgpipe_orchestration.devstack.standins.measure import Measured, measure, verdict

_BAD_IMAGE = {"error": {"code": 3, "message": "Bad image data."}}
_LIKELIHOODS = ("VERY_UNLIKELY", "UNLIKELY", "POSSIBLE", "LIKELY", "VERY_LIKELY")
_THINGS = ("Art", "Tool", "Vehicle", "Plant", "Textile", "Furniture", "Food", "Building")


def _authorised(request: Request) -> None:
    if not (request.headers.get("x-goog-api-key") or request.query_params.get("key")):
        raise HTTPException(403, "The request is missing a valid API key.")


router = APIRouter(prefix=GOOGLE, dependencies=[Depends(_authorised)])


@router.post("/v1/images:annotate")
def annotate(requests: Annotated[list[dict[str, Any]], Body(embed=True, max_length=16)]) -> dict[str, Any]:
    return {"responses": [_annotated(one) for one in requests], "standin": True}


def _annotated(request: dict[str, Any]) -> dict[str, Any]:
    try:
        image = base64.b64decode(request["image"]["content"], validate=True)
    except (KeyError, ValueError, TypeError):
        return _BAD_IMAGE
    measured = measure(image)
    if measured is None or not image.startswith((b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF")):
        return _BAD_IMAGE
    thing = Facts(measured.digest).pick(_THINGS, "label")
    # Text, logos, faces and the crops that keep them would need a model: the real API leaves out what it did not find,
    # and so do we. A made-up crop hint would have heads cut off that the image engine finds by itself.
    answers = {
        "LABEL_DETECTION": ("labelAnnotations", _labels(measured, thing)),
        "OBJECT_LOCALIZATION": ("localizedObjectAnnotations", [_object(thing)]),
        "IMAGE_PROPERTIES": ("imagePropertiesAnnotation", {"dominantColors": {"colors": _colours(measured)}}),
        "SAFE_SEARCH_DETECTION": ("safeSearchAnnotation", _likelihoods(image)),
    }
    asked = [feature.get("type", "") for feature in request.get("features", [])]
    return dict(answers[kind] for kind in asked if kind in answers)


def _labels(measured: Measured, thing: str) -> list[dict[str, Any]]:
    names = (measured.words.rpartition(" ")[2].capitalize(), thing)
    return [
        {"mid": f"/standin/{i}", "description": name, "score": round(0.95 - 0.07 * i, 3), "topicality": 0.9}
        for i, name in enumerate(names)
    ]


def _object(thing: str) -> dict[str, Any]:
    """Something in the middle of the image."""
    vertices = [{"x": x, "y": y} for x, y in ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))]
    return {"mid": "/standin/o", "name": thing, "score": 0.8, "boundingPoly": {"normalizedVertices": vertices}}


def _colours(measured: Measured) -> list[dict[str, Any]]:
    return [
        {
            "color": {name: value for name, value in zip(("red", "green", "blue"), colour, strict=True) if value},
            "score": round(share, 4),
            "pixelFraction": round(share, 4),
        }
        for colour, share in measured.colours
    ]


def _likelihoods(data: bytes) -> dict[str, str]:
    """Google's words of safe search."""
    scores = verdict(data)
    names = ("adult", "spoof", "medical", "violence", "racy")
    return {name: _LIKELIHOODS[round(4 * scores.get(name, 0.0))] for name in names}
