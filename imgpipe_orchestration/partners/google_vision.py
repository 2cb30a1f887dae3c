"""Google Cloud Vision over REST with an API key (`images:annotate`, v1).

The official client pulls in gRPC for one POST; the REST form is the same API.
https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from imgpipe_orchestration.errors import (
    BadImage,
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.usage import Priced, Usage, charged
from imgpipe_orchestration.telemetry.logs import logger

log = logger(__name__)

MODEL = "vision-v1"
"""The name of this API in the ledger and the price table."""

_ANSWERED_IN = {
    "LABEL_DETECTION": "labelAnnotations",
    "OBJECT_LOCALIZATION": "localizedObjectAnnotations",
    "IMAGE_PROPERTIES": "imagePropertiesAnnotation",
    "TEXT_DETECTION": "textAnnotations",
    "LOGO_DETECTION": "logoAnnotations",
    "FACE_DETECTION": "faceAnnotations",
    "SAFE_SEARCH_DETECTION": "safeSearchAnnotation",
    "CROP_HINTS": "cropHintsAnnotation",
}
FEATURES = tuple(_ANSWERED_IN)

_NAME = "Google Vision"

_FREE_WITH = {"SAFE_SEARCH_DETECTION": "LABEL_DETECTION", "CROP_HINTS": "IMAGE_PROPERTIES"}
_OBJECTS = 1.5
"""Billable units of objects; of every other feature 1 (https://cloud.google.com/vision/pricing: 1.50 USD per 1,000
units, objects 2.25)."""
_MOST = 1_000
"""Annotations of a kind that are taken. Twenty are asked for, but words on a page come in any number."""

# google.rpc.Code values for which a later try may succeed; 8 is RESOURCE_EXHAUSTED.
_TRANSIENT = {1: "CANCELLED", 2: "UNKNOWN", 4: "DEADLINE_EXCEEDED", 13: "INTERNAL", 14: "UNAVAILABLE"}


class GoogleVision(JsonApi):
    """Client of one Google Vision endpoint."""

    def __init__(
        self, endpoint: str, api_key: str, *, timeout: float = 60.0, policy: RetryPolicy | None = None
    ) -> None:
        # The key goes into a header: in the URL it would end up in access logs.
        headers = {"X-Goog-Api-Key": api_key}
        super().__init__(_NAME, endpoint, headers=headers, timeout=timeout, policy=policy, paid=True)

    def annotate(
        self, image: bytes, *, size: tuple[int, int], features: Sequence[str] = FEATURES
    ) -> Priced[dict[str, Any]]:
        """Look at one image.

        An answer may have annotations beside an error. Those are correct
        (https://cloud.google.com/vision/docs/reference/rest/v1/AnnotateImageResponse), and paid for.

        Args:
            image: a JPEG of up to 7 MB: Google reads no AVIF or HEIC, and 10 MB of JSON, to which base64 adds a third.
            size: its width and height in pixels.
            features: what to look for.

        Returns:
            `raw`, the answer without its error, which `columns` reads; and `missing`, the features that the error kept
            from being answered, to be asked for again.

        Raises:
            BadImage: Google cannot decode it.
            SpendingPaused: the project's billing is off.
            PartnerRefused, PartnerUnavailable, RateLimited: as in `JsonApi.request`, also from an error inside a 200.
        """
        request = {
            "image": {"content": base64.b64encode(image).decode()},
            "features": [{"type": feature, "maxResults": 20} for feature in features],
        }
        usage = Usage(model=MODEL, units=units_of(features))
        try:
            answer = self.request_json("POST", "/v1/images:annotate", json_body={"requests": [request]})
        except PartnerRefused as error:
            told = error.detail or ""
            if "BILLING_DISABLED" in told:
                raise SpendingPaused(f"{_NAME}: billing is off for this key's project", detail=told) from error
            if "API_KEY_INVALID" in told:  # answered with 400, as what is wrong with an image is
                raise PartnerRefused(
                    f"{_NAME} does not accept its key: give it a valid one", detail=told, partner_status=401
                ) from error
            raise
        except UnreadableAnswer as error:
            error.usage = usage
            raise
        try:
            (raw,) = answer["responses"]
            missing = _missing(raw, features)
            columns(raw, size)  # an answer that we cannot read is an error now, and not when it is used
            standin = "-standin" if answer.get("standin") else ""
            return Priced({"raw": raw, "missing": missing}, replace(usage, model=MODEL + standin))
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            with charged(usage):
                raise UnreadableAnswer(
                    f"{_NAME} answered in a shape we do not know", detail=f"{error!r}: {str(answer)[:500]}"
                ) from error


def units_of(features: Sequence[str]) -> float:
    paid = [feature for feature in features if _FREE_WITH.get(feature) not in features]
    return sum(_OBJECTS if feature == "OBJECT_LOCALIZATION" else 1.0 for feature in paid)


def columns(raw: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """What Google saw, as columns of an analysis. Google's colours stay in `raw`, because we measure our own.

    Boxes are left, top, right and bottom as fractions of the image, also where Google gives pixels.

    Args:
        size: width and height of the image that Google was shown, pixels.
    """
    texts, logos = _some(raw, "textAnnotations"), _some(raw, "logoAnnotations")
    hints = _some(raw.get("cropHintsAnnotation", {}), "cropHints")
    values: dict[str, Any] = {
        "labels": [_scored(one, "description") for one in _some(raw, "labelAnnotations")],
        "detected_objects": [
            {**_scored(one, "name"), "box": _box_of(one, (1, 1), "normalizedVertices")}
            for one in _some(raw, "localizedObjectAnnotations")
        ],
        "detected_text": str(texts[0]["description"]).strip() if texts else "",
        "safe_search": {str(name): str(word) for name, word in raw.get("safeSearchAnnotation", {}).items()},
        "raw_google_response": raw,
        "boxes": {
            "faces": _boxes_of(_some(raw, "faceAnnotations"), size),
            "logos": _boxes_of(logos, size),
            "text": _boxes_of(texts[1:], size),
            "crop_hints": _boxes_of(hints, size),
        },
    }
    if logos:
        values["brand_name"] = _scored(logos[0], "description")["name"]
    return values


def _missing(raw: dict[str, Any], features: Sequence[str]) -> list[str]:
    """The features that an error kept from being answered; the error is taken out of the answer.

    Raises:
        ImgpipeError: nothing was answered.
    """
    error = raw.pop("error", None)
    if not error:
        return []
    code, message = int(error.get("code", 2)), str(error.get("message", ""))
    missing = [feature for feature in features if not raw.get(_ANSWERED_IN[feature])]
    if len(missing) == len(features):
        raise _error(code, message)
    log.warning("a part of an answer is missing", extra={"partner": _NAME, "code": code, "missing": missing})
    return missing


def _some(answer: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """The annotations of a kind, at most `_MOST`."""
    found: list[Mapping[str, Any]] = answer.get(kind, [])[:_MOST]
    return found


def _scored(annotation: Mapping[str, Any], named: str) -> dict[str, Any]:
    name = annotation[named]
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a name")
    # Null stands for NaN in the ledger.
    return {"name": name, "score": float(annotation.get("score") or 0)}


def _error(code: int, message: str) -> ImgpipeError:
    """The error in an HTTP 200, by its google.rpc code; 3 is INVALID_ARGUMENT, an unreadable image."""
    if code == 8:
        return RateLimited(f"{_NAME}'s quota is exhausted for now", detail=message)
    if code in _TRANSIENT:
        return PartnerUnavailable(f"{_NAME} failed ({_TRANSIENT[code]})", detail=message)
    if code == 3:
        return BadImage(f"{_NAME} cannot read this image", detail=message)
    return PartnerRefused(f"{_NAME} refused the image (code {code})", detail=message)


def _boxes_of(annotations: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> list[list[float]]:
    return [box for box in (_box_of(one, size) for one in annotations) if box]


def _box_of(annotation: Mapping[str, Any], size: tuple[int, int], corners: str = "vertices") -> list[float] | None:
    """The enclosing rectangle within the picture, None where nothing of it is; a coordinate that is zero is left out of
    the JSON, and null stands for NaN in the ledger."""
    vertices = annotation.get("boundingPoly", {}).get(corners)
    if not vertices:
        return None
    given = [(v.get("x", 0), v.get("y", 0)) for v in vertices]
    xs = [math.nan if x is None else float(x) / size[0] for x, _ in given]
    ys = [math.nan if y is None else float(y) / size[1] for _, y in given]
    if not all(map(math.isfinite, xs + ys)):
        return None
    box = Box(min(xs), min(ys), max(xs), max(ys))
    return [round(side, 4) for side in (box.left, box.top, box.right, box.bottom)] if box.area else None
