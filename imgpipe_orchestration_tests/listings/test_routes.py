"""The upload and its URLs over HTTP, against a real database and object store."""

import hashlib
import re
import time
from urllib.parse import urlsplit
from uuid import UUID

import jwt
import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.listings import model
from imgpipe_orchestration.listings.store import QUEUE
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture, pixels
from imgpipe_orchestration_tests.listings.conftest import Form, drain, path_of, photo, queued, rows


def test_two_images_are_answered_with_exactly_the_documents_shape(client: Client, settings: Settings) -> None:
    answer = Form("My Listing!", [("a.jpg", photo()), ("b.png", encoded(picture(), "PNG"))]).send(client)
    assert answer.status_code == 200
    body = answer.json()
    assert list(body) == ["status", "data"]
    assert body["status"] == "success"
    assert list(body["data"]) == ["message", "image_count", "images", "status", "listing_id"]
    assert body["data"]["message"] == "2 images queued for processing"
    assert body["data"]["image_count"] == 2
    assert body["data"]["status"] == "processing"
    for image in body["data"]["images"]:
        assert list(image) == ["id", "url", "file_name", "status"]
        assert image["file_name"] == f"my-listing-{UUID(image['id']).hex[:8]}.webp"
        assert image["url"] == f"{settings.listings_public_url}/{image['file_name']}"
        assert urlsplit(image["url"]).path == f"/storage/v1/object/public/listing-images/{image['file_name']}"
        assert image["status"] == "pending"


def test_one_image_says_image_and_any_name_of_the_field_works(client: Client) -> None:
    for field in ("images", "image", "file", "listing_image", "images[]"):
        answer = Form("One", [("a.jpg", photo())], field).send(client)
        assert answer.status_code == 200, (field, answer.text)
        assert answer.json()["data"]["message"] == "1 image queued for processing"


def test_one_bad_file_among_thirty_is_named_and_the_others_are_queued(client: Client, services: Services) -> None:
    files = [(f"{n}.jpg", photo() + bytes([n])) for n in range(29)]
    answer = Form("Thirty", [*files[:4], ("notes.jpg", b"these are notes"), *files[4:]]).send(client)
    data = answer.json()["data"]
    assert answer.status_code == 200
    assert (data["image_count"], len(data["images"])) == (29, 29)
    assert data["message"] == "29 images queued for processing"
    assert [one["file_name"] for one in data["rejected"]] == ["notes.jpg"]
    assert data["rejected"][0]["code"] == "bad-image"
    assert data["rejected"][0]["error"]
    names = rows(services, "select original_key from image_queue")
    kept = {services.listings_bucket.get(key)[-1] for (key,) in names}
    assert (len(names), kept) == (29, set(range(29))), "each original is stored as it came"


def test_an_upload_without_a_usable_image_is_a_problem_that_says_why(client: Client, services: Services) -> None:
    answer = Form("Bad", [("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"), ("b.jpg", b"")]).send(client)
    assert answer.status_code == 415
    assert answer.headers["content-type"] == "application/problem+json"
    assert [one["file_name"] for one in answer.json()["rejected"]] == ["a.svg", "b.jpg"]
    assert "SVG is not accepted here, only as a user's logo" in answer.json()["rejected"][0]["error"]
    assert rows(services, "select count(*) from image_queue")[0][0] == 0


def test_too_large_and_too_many_and_none_at_all(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST_IMAGES", 2)
    limited = settings.model_copy(update={"upload_max_bytes": 20_000})
    with Client(create_app(limited)) as client:
        large = Form("Large", [("a.jpg", photo(800, 600))]).send(client)
        many = Form("Many", [(f"{n}.jpg", photo()) for n in range(3)]).send(client)
        none = client.post("/api/upload/listing_image", data={"listing_title": "None"})
    assert (large.status_code, large.json()["code"]) == (413, "too-large")
    assert "20,000" in large.json()["detail"]
    assert (many.status_code, many.json()["code"]) == (413, "too-large")
    assert "3; the limit is 2" in many.json()["detail"]
    assert (none.status_code, none.json()["field"]) == (422, "images")


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Fahrrad für Mädchen – wie neu!", "fahrrad-fur-madchen-wie-neu"),
        ("Велосипед", "velosiped"),
        ("日本の自転車", "ri-ben-nozi-zhuan-che"),
        ("", "listing"),
        ("🚲🚲", "listing"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 500, "x" * 60),
    ],
)
def test_the_slug_suits_any_title(client: Client, title: str, expected: str) -> None:
    image = queued(client, photo(), title=title)[0]
    assert re.fullmatch(rf"{expected}-[0-9a-f]{{8}}\.webp", image["file_name"])
    assert client.get(path_of(image)).status_code == 200


def test_until_the_webp_is_there_the_url_answers_with_the_original(client: Client) -> None:
    data = photo()
    image = queued(client, data)[0]
    answer = client.get(path_of(image))
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "etag" not in answer.headers
    head = client.head(path_of(image))
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))


def test_an_original_that_browsers_cannot_show_has_a_placeholder_of_its_shape(client: Client) -> None:
    image = queued(client, encoded(picture(800, 1600), "TIFF"))[0]
    answer = client.get(path_of(image))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    assert answer.headers["cache-control"] == "no-store"
    assert pixels(answer.content).shape[:2] == (640, 320)


def test_afterwards_it_is_the_webp_with_long_caching_and_an_etag(client: Client, services: Services) -> None:
    image = queued(client, photo(1600, 1200))[0]
    assert drain(services, "run-1").processed == 1
    answer = client.get(path_of(image))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
    assert answer.headers["cache-control"] == "public, max-age=31536000"
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    assert pixels(answer.content).shape[:2] == (640, 853)
    assert answer.content[8:12] == b"WEBP"
    for known in (answer.headers["etag"], f'W/{answer.headers["etag"]}, "x"', "*"):
        unchanged = client.get(path_of(image), headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert unchanged.headers["cache-control"] == "public, max-age=31536000"
    assert client.get(path_of(image), headers={"If-None-Match": '"x"'}).status_code == 200


def test_an_image_that_failed_for_good_is_404_with_the_reason(client: Client, services: Services) -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 255, (400, 400, 3), np.uint8)), "JPEG")
    image = queued(client, whole[: len(whole) // 2])[0]
    assert len(drain(services, "run-1").outcome.failed) == 1
    answer = client.get(path_of(image))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert "cut short" in answer.json()["detail"]
    kept = ("failed", "the jpeg is cut short", 1)
    assert rows(services, "select status, error, retries from image_queue")[0] == kept
    (failed,) = rows(services, "select id from image_queue")
    services.claims.ignore(QUEUE, [failed.id])
    assert rows(services, "select status, error, retries from image_queue")[0] == kept
    assert client.get(path_of(image)).json()["detail"] == answer.json()["detail"]


def test_a_name_that_was_never_handed_out_is_404(client: Client) -> None:
    for name in ("my-listing-00000000.webp", "a%00-00000000.webp", "..%2Foriginals%2Fx", "originals"):
        assert client.get(f"/storage/v1/object/public/listing-images/{name}").status_code == 404


def test_production_asks_for_the_users_token_and_has_no_debug_routes(settings: Settings, services: Services) -> None:
    secret = "a-secret-of-this-test-that-is-long-enough"
    keys = dict.fromkeys(("media_api_key", "main_api_key", "admin_api_key", "secret_key"), "another-secret")
    production = settings.model_copy(update={"imgpipe_env": "production", "user_jwt_secret": secret, **keys})
    token = jwt.encode({"sub": "7", "exp": int(time.time()) + 60}, secret, "HS256")
    with Client(create_app(production)) as client:
        form = Form("Mine", [("a.jpg", photo())])
        assert form.send(client).status_code == 401
        assert form.send(client, Authorization="Bearer wrong").status_code == 401
        mine = form.send(client, Authorization=f"Bearer {token}")
        assert mine.status_code == 200
        assert client.get(path_of(mine.json()["data"]["images"][0])).status_code == 200
        assert client.get("/debug/image-queue-status").status_code == 404
        assert client.post("/debug/upload-test-image", json={"image_path": "a.jpg"}).status_code == 404
        assert client.get("/api/jobs/process-image-queue").status_code == 401
        assert client.delete("/api/jobs/process-image-queue").status_code == 401
    assert rows(services, "select user_id from image_queue") == [(7,)]
    assert rows(services, "select tenant from work_items where queue = 'listings'") == [("7",)]
