"""`/api/media/*`: an outside worker written against the documents works unchanged, also beside our own."""

import re
from typing import Any

import pytest
import requests

from imgpipe_orchestration.partners.main_api import HEADER, sign
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


def post(gateway: Gateway, image_id: int, body: dict[str, Any], **headers: str) -> requests.Response:
    url = f"{gateway.url}/api/media/complete/{image_id}"
    return requests.post(url, json=body, headers={**gateway.as_worker, **headers}, timeout=30)


def delete(gateway: Gateway, image_id: int) -> requests.Response:
    return requests.delete(f"{gateway.url}/api/media/cleanup/{image_id}", headers=gateway.as_worker, timeout=30)


def test_pending_lists_what_waits_in_the_documents_shape(gateway: Gateway) -> None:
    gateway.upload(456, profile_image=picture())
    answer = gateway.get("/api/media/pending/all", **gateway.as_worker).json()
    assert answer["total"] == 1
    (image,) = answer["images"]
    assert set(image) == {"id", "user_id", "image_path", "original_name", "mime_type", "status", "created_at"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", image["created_at"])


def test_what_waits_is_listed_oldest_first_and_in_parts_when_it_is_much(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in (9, 1, 2, 3):
        gateway.upload(user, profile_image=picture())
    gone = f"{gateway.url}/api/media/pending/1"
    assert requests.delete(gone, headers=gateway.as_user(9), timeout=30).status_code == 202
    monkeypatch.setattr("imgpipe_orchestration.media.routes.MOST_LISTED", 2)

    def listed(query: str) -> list[int]:
        answer = gateway.get(f"/api/media/pending/all?{query}", **gateway.as_worker).json()
        assert answer["total"] == 3
        return [image["user_id"] for image in answer["images"]]

    assert listed("limit=1") == [1]
    assert listed("limit=50000") == [1, 2]


def test_an_outside_worker_completes_an_image_and_its_urls_are_replaced(gateway: Gateway) -> None:
    path = gateway.upload(456, profile_image=picture()).json()["profile_image_path"]
    answer = post(gateway, 1, {"media_id": "789"})
    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "imageId": 1,
        "media_id": "789",
        "status": "processed",
        "smart_url_preview": f"{gateway.url}/api/images/789",
    }
    smart = f"{gateway.url}/api/images/789?size=detail"
    assert gateway.me()["profile_image_path"] == smart  # at once, before the replacement has run
    assert gateway.rows("select profile_image_path from user_profiles")[0][0] == path
    gateway.run_due()
    assert gateway.rows("select profile_image_path from user_profiles")[0][0] == smart
    (row,) = gateway.rows("select status, permanent_url, thumbnail_url from pending_images")
    assert tuple(row) == ("complete", "789", "789")
    assert gateway.get(path).status_code == 404


def test_a_finished_image_that_was_deleted_does_not_wait_again(gateway: Gateway) -> None:
    gateway.finish(1, profile_image=picture())
    assert requests.delete(f"{gateway.url}/api/media/1", headers=gateway.as_user(1), timeout=30).status_code == 202
    assert gateway.rows("update pending_images set status = 'pending' returning 1")
    assert gateway.get("/api/media/pending/all", **gateway.as_worker).json() == {"images": [], "total": 0}


def test_the_rich_body_is_taken_with_and_without_media_id(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture(), header_image=picture(seed=2))
    rich = {"permanent_url": "https://media-backend/serve/789", "processing_complete": True, "ai_enhanced": True}
    assert post(gateway, 1, rich).json()["media_id"] == "789"
    assert post(gateway, 2, {**rich, "media_id": 790}).json()["media_id"] == "790"


def test_a_report_of_an_image_that_is_not_processed_yet_is_refused(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    answer = post(gateway, 1, {"media_id": "5", "processing_complete": False})
    assert (answer.status_code, answer.json()["field"]) == (422, "processing_complete")
    assert gateway.rows("select status from pending_images") == [("pending",)]


def test_what_another_worker_found_is_told_under_its_media_id(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture(), header_image=picture(seed=2))
    found = {"style": "Abstract Expressionist", "quality_score": 85, "mood_keywords": ["vibrant", "half a \ud83d"]}
    rich = {"permanent_url": "https://media-backend/serve/789", "processing_complete": True, "ai_analysis": found}
    assert post(gateway, 1, rich).status_code == post(gateway, 1, rich).status_code == 200
    answer = gateway.get("/api/media/analysis/789", **gateway.as_worker).json()
    assert answer["success"] is True
    assert answer["analysis"]["style"] == "Abstract Expressionist"
    assert post(gateway, 2, {"media_id": "theirs-2"}).status_code == 200
    assert gateway.get("/api/media/analysis/theirs-2", **gateway.as_worker).status_code == 404


def _nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {"style": "a\0 \ud800"}
    for level in range(levels - 1):
        inner = {"in": [inner]} if level % 2 else {"in": inner}
    return inner


def test_an_analysis_that_nobody_could_read_again_is_refused_and_nothing_of_the_report_kept(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    answer = post(gateway, 1, {"media_id": "77", "ai_analysis": _nested(300)})
    assert (answer.status_code, answer.json()["field"]) == (422, "ai_analysis")
    assert gateway.rows("select status from pending_images") == [("pending",)]
    assert post(gateway, 1, {"media_id": "78", "ai_analysis": _nested(130)}).status_code == 200
    assert gateway.get("/api/media/analysis/78", **gateway.as_worker).json()["analysis"]["in"]


def test_completing_twice_is_harmless_and_another_id_is_a_conflict(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    assert post(gateway, 1, {"media_id": "5"}).json() == post(gateway, 1, {"media_id": "5"}).json()
    assert post(gateway, 1, {"media_id": "6"}).status_code == 409


_NO_IDS: list[dict[str, Any]] = [
    {},
    {"media_id": None},
    {"media_id": True},
    {"media_id": -3},
    {"media_id": "../x"},
    {"media_id": "abc"},
    {"media_id": "12 3"},
    {"permanent_url": "https://x/"},
    {"permanent_url": "https://x/serve/"},
    {"permanent_url": "https://x/serve/undefined"},
    {"media_id": "null"},
    {"permanent_url": "http://["},
]


def test_a_report_without_a_media_id_says_what_to_send(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    for body in _NO_IDS:
        answer = post(gateway, 1, body)
        assert (answer.status_code, answer.json().get("field")) == (422, "media_id"), body
        assert "letters, digits, - and _, at least one digit, and begins with" in answer.json()["detail"]


def test_a_number_that_no_row_has_is_named_as_the_wrong_field(gateway: Gateway) -> None:
    for answer in (post(gateway, 10**30, {"media_id": "5"}), delete(gateway, 10**30)):
        assert (answer.status_code, answer.json()["field"]) == (422, "image_id")


def test_cleaning_up_marks_failed_removes_the_file_and_closes_the_way(gateway: Gateway) -> None:
    path = gateway.upload(1, profile_image=picture()).json()["profile_image_path"]
    answer = delete(gateway, 1)
    assert answer.json() == {"success": True, "message": "Image marked as failed and temp file cleaned up"}
    assert gateway.get(path).status_code == 404
    assert post(gateway, 1, {"media_id": "5"}).status_code == 409
    gateway.run_due()
    assert gateway.rows("select status from pending_images") == [("failed",)]


def test_a_processed_image_cannot_be_cleaned_up(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    post(gateway, 1, {"media_id": "5"})
    assert delete(gateway, 1).status_code == 409


def test_a_wrong_signature_is_refused_a_right_one_taken(gateway: Gateway) -> None:
    gateway.upload(1, profile_image=picture())
    body = b'{"media_id": "5"}'
    url = f"{gateway.url}/api/media/complete/1"
    headers = {**gateway.as_worker, "Content-Type": "application/json"}
    wrong = {**headers, HEADER: sign(body, "another key")}
    assert requests.post(url, data=body, headers=wrong, timeout=30).status_code == 401
    right = {**headers, HEADER: sign(body, gateway.settings.main_api_key)}
    assert requests.post(url, data=body, headers=right, timeout=30).status_code == 200
