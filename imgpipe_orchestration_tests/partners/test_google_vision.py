"""Google Vision's client: the protocol's peculiarities, and what is refused before a call is paid for."""

import json
from typing import Any

import pytest

from imgpipe_orchestration.errors import (
    BadImage,
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.google_vision import GoogleVision, columns
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.storage import jsonb
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.partners.wire import reply, serving

JPEG = b"\xff\xd8\xff" + bytes(100)


def annotated(answer: Any) -> dict[str, Any]:
    """The columns that come of one image's answer; the image is 200 x 100."""
    body = json.dumps({"responses": [answer]}).encode()
    with serving(lambda h, _: reply(h, body)) as server:
        client = GoogleVision(server.url, "k", policy=RetryPolicy(attempts=1))
        return columns(client.annotate(JPEG, size=(200, 100)).value["raw"], (200, 100))


def test_a_photo_is_annotated(standins: StandInAccess, photo: bytes) -> None:
    seen = GoogleVision(standins.google_url, "key").annotate(photo, size=(600, 400))
    found = columns(seen.value["raw"], (600, 400))
    assert found["labels"][0]["name"] == "Landscape"
    assert found["detected_objects"][0]["box"] is not None
    assert found["safe_search"]["violence"] == "VERY_UNLIKELY"
    assert found["detected_text"] == ""
    assert found["boxes"] == {"faces": [], "logos": [], "text": [], "crop_hints": []}
    assert seen.usage.standin
    assert seen.usage.units == 6.5


def test_the_key_travels_in_a_header_and_not_in_the_url() -> None:
    with serving(lambda h, _: reply(h, b'{"responses": [{}]}')) as server:
        GoogleVision(server.url, "the-key").annotate(JPEG, size=(1, 1))
        path, headers, body = server.requests[0]
    assert path == "/v1/images:annotate"
    assert headers["x-goog-api-key"] == "the-key"
    assert {feature["type"] for feature in json.loads(body)["requests"][0]["features"]} >= {"CROP_HINTS"}


def test_coordinates_that_were_left_out_are_zero() -> None:
    seen = annotated(
        {
            "localizedObjectAnnotations": [
                {
                    "name": "Cat",
                    "score": 0.9,
                    "boundingPoly": {"normalizedVertices": [{}, {"x": 0.5}, {"x": 0.5, "y": 0.25}, {"y": 0.25}]},
                }
            ],
            "cropHintsAnnotation": {
                "cropHints": [{"boundingPoly": {"vertices": [{}, {"x": 100}, {"x": 100, "y": 50}, {"y": 50}]}}]
            },
        }
    )
    assert seen["detected_objects"][0]["box"] == [0, 0, 0.5, 0.25]
    assert seen["boxes"]["crop_hints"] == [[0, 0, 0.5, 0.5]]


def test_boxes_are_clipped_to_the_image() -> None:
    vertices = [{"x": -10, "y": -5}, {"x": 500, "y": 300}]
    seen = annotated({"faceAnnotations": [{"boundingPoly": {"vertices": vertices}, "detectionConfidence": 0.8}]})
    assert seen["boxes"]["faces"] == [[0, 0, 1, 1]]


def test_the_first_text_annotation_is_the_whole_text_and_the_rest_are_words() -> None:
    word = {"description": "OPEN", "boundingPoly": {"vertices": [{"x": 20, "y": 10}, {"x": 60, "y": 30}]}}
    seen = annotated({"textAnnotations": [{"description": "OPEN\n24 h\n"}, word]})
    assert seen["detected_text"] == "OPEN\n24 h"
    assert seen["boxes"]["text"] == [[0.1, 0.1, 0.3, 0.3]]


def test_nan_is_no_place_and_no_score_also_as_the_null_that_the_ledger_keeps() -> None:
    vertices = [{"x": 20, "y": 10}, {"x": float("nan"), "y": 30}]
    answer = {
        "labelAnnotations": [{"description": "cat", "score": float("nan")}],
        "faceAnnotations": [{"boundingPoly": {"vertices": vertices}}],
    }
    annotated(answer)
    seen = columns(json.loads(jsonb.dumps(answer)), (200, 100))
    assert seen["labels"] == [{"name": "cat", "score": 0}]
    assert seen["boxes"]["faces"] == []


@pytest.mark.parametrize(
    ("code", "error"),
    [(3, BadImage), (7, PartnerRefused), (8, RateLimited), (13, PartnerUnavailable), (14, PartnerUnavailable)],
)
def test_an_error_inside_a_200_is_an_error(code: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        annotated({"error": {"code": code, "message": "no"}})


def test_a_part_is_asked_for_and_charged_alone() -> None:
    with serving(lambda h, _: reply(h, b'{"responses": [{}]}')) as server:
        part = ("OBJECT_LOCALIZATION", "CROP_HINTS")
        seen = GoogleVision(server.url, "k").annotate(JPEG, size=(1, 1), features=part)
        asked = json.loads(server.requests[0][2])["requests"][0]["features"]
    assert tuple(feature["type"] for feature in asked) == part
    assert seen.usage.units == 2.5


@pytest.mark.parametrize(
    "answer",
    [
        {"labelAnnotations": "many"},
        {"labelAnnotations": [{"score": 0.5}]},
        {"localizedObjectAnnotations": [{}]},
        {"error": "text"},
        {"error": {"code": float("inf")}},
        ["labelAnnotations"],
    ],
)
def test_an_answer_of_another_shape_is_unreadable_and_charged(answer: Any) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        annotated(answer)
    assert caught.value.usage is not None
    assert caught.value.usage.units == 6.5


@pytest.mark.parametrize(
    ("status", "reason", "error", "kept"),
    [
        (403, "BILLING_DISABLED", SpendingPaused, None),
        (400, "API_KEY_INVALID", PartnerRefused, 401),
        (400, "", PartnerRefused, 400),
    ],
)
def test_what_is_wrong_with_the_account_is_not_taken_for_the_images_fault(
    status: int, reason: str, error: type[ImgpipeError], kept: int | None
) -> None:
    body = json.dumps({"error": {"code": status, "details": [{"reason": reason}]}}).encode()
    with serving(lambda h, _: reply(h, body, status)) as server, pytest.raises(error) as caught:
        GoogleVision(server.url, "k").annotate(JPEG, size=(1, 1))
    assert caught.value.partner_status == kept
