"""Uploads straight to the object store: announce, put, commit."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from typing import Any

import requests

from imgpipe_orchestration.media.lifecycle import MEDIA
from imgpipe_orchestration.operations.tidying import collect_garbage
from imgpipe_orchestration_tests.conftest import S3Access
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.partners.wire import pass_on, serving

USER = 7


def announced(gateway: Gateway, data: bytes, **changes: Any) -> requests.Response:
    body = {"kind": "profile_image", "content_type": "image/jpeg", "size": len(data), "name": "my photo.jpg", **changes}
    url = f"{gateway.url}/api/media/uploads"
    return gateway.session.post(url, json=body, headers=gateway.as_user(USER), timeout=30)


def sent(gateway: Gateway, data: bytes, **changes: Any) -> str:
    """The id of an upload whose file is there."""
    answer = announced(gateway, data, **changes)
    assert answer.status_code == 201, answer.text
    presigned = answer.json()
    put = requests.put(presigned["url"], data=data, headers=presigned["headers"], timeout=30)
    assert put.status_code == 200, put.text
    upload: str = presigned["upload_id"]
    return upload


def committed(gateway: Gateway, upload: str, user: int = USER) -> requests.Response:
    url = f"{gateway.url}/api/media/uploads/{upload}/commit"
    return gateway.session.post(url, headers=gateway.as_user(user), timeout=30)


def staged(gateway: Gateway) -> list[str]:
    return [one.key for one in gateway.services.media_bucket.list("staging/")]


def test_a_file_that_never_passed_the_gateway_becomes_an_image(gateway: Gateway) -> None:
    data = picture(640, 480)
    upload = sent(gateway, data)
    assert gateway.rows("select 1 from pending_images") == []
    first, again = committed(gateway, upload), committed(gateway, upload)
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    row = gateway.rows("select id, user_id, image_path, original_name, mime_type, status from pending_images")
    assert [tuple(one) for one in row] == [
        (first.json()["id"], USER, first.json()["image_path"], "my photo.jpg", "image/jpeg", "pending")
    ]
    assert gateway.get(first.json()["image_path"]).content == data
    assert gateway.me(USER)["profile_image_path"] == first.json()["image_path"]
    assert staged(gateway) == []
    gateway.run_due()
    assert gateway.session.get(gateway.me(USER)["profile_image_path"], timeout=30).status_code == 200


def test_commits_that_meet_accept_the_file_once(gateway: Gateway) -> None:
    upload = sent(gateway, picture())
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: requests.post(
            f"{gateway.url}/api/media/uploads/{upload}/commit", headers=gateway.as_user(USER), timeout=30
        ), range(6)))  # fmt: skip
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert gateway.rows("select count(*) from pending_images")[0][0] == 1
    assert len(list(gateway.services.media_bucket.list("temp_images/"))) == 1


def test_a_file_that_the_object_store_does_not_give_whole_is_not_accepted(
    make_gateway: Callable[..., Gateway], s3: S3Access
) -> None:
    halves = [True]

    def half_at_first(handler: BaseHTTPRequestHandler, _: int) -> None:
        half = handler.command == "GET" and halves.pop() if halves else False
        pass_on(handler, s3.endpoint, lambda body: body[: len(body) // 2] if half else body)

    with serving(half_at_first) as between:
        gateway = make_gateway(s3_endpoint=between.url, s3_upload_endpoint=s3.endpoint)
        upload = sent(gateway, picture())
        assert committed(gateway, upload).status_code == 503
        assert (gateway.rows("select 1 from pending_images"), len(staged(gateway))) == ([], 1)
        path = committed(gateway, upload).json()["image_path"]
        assert gateway.get(path).content == picture()


def test_a_file_of_unknown_type_is_looked_at_on_commit(gateway: Gateway) -> None:
    for unknown in ("", "application/octet-stream"):
        upload = sent(gateway, picture(format="PNG"), content_type=unknown, name="gpj.\u202e\x1b[2Ja\0.png")
        assert committed(gateway, upload).status_code == 200
        refused = committed(gateway, sent(gateway, b"no image at all", content_type=unknown))
        assert refused.status_code == 415
    found = gateway.rows("select original_name, mime_type from pending_images")
    assert found == [("gpj.[2Ja.png", "image/png")] * 2


def test_what_is_wrong_is_said(gateway: Gateway) -> None:
    not_sent = announced(gateway, picture()).json()["upload_id"]
    assert (committed(gateway, not_sent).status_code, committed(gateway, not_sent).json()["code"]) == (409, "not-there")
    assert committed(gateway, "no-such-upload").status_code == 404
    assert committed(gateway, not_sent, user=USER + 1).status_code == 404
    assert gateway.session.post(f"{gateway.url}/api/media/uploads", json={}, timeout=30).status_code == 401
    for changes, status in (
        ({"size": gateway.settings.upload_max_bytes + 1}, 413),
        ({"size": 0}, 422),
        ({"privat": True}, 422),
        ({"kind": "cat_image"}, 422),
        ({"content_type": "text/html"}, 422),
        ({"content_type": "application/octet-stream; charset=utf-8"}, 422),
        ({"content_type": "image/svg+xml"}, 415),
    ):
        answer = announced(gateway, b"x", **changes)
        assert (answer.status_code, answer.json().get("field", *changes)) == (status, *changes)

    for data in (b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"no image at all"):
        upload = sent(gateway, data)
        assert committed(gateway, upload).status_code == 415
        assert staged(gateway) == [], "what was refused is removed"
        assert committed(gateway, upload).status_code == 409
    assert gateway.rows("select 1 from pending_images") == []


def test_a_logo_may_come_as_svg_and_is_kept_as_png(gateway: Gateway) -> None:
    logo = b"<svg xmlns='http://www.w3.org/2000/svg' width='40' height='20'><rect width='40' height='20'/></svg>"
    told = announced(gateway, logo, kind="logo_image", content_type="image/svg+xml").json()
    assert requests.put(told["url"], data=logo, headers=told["headers"], timeout=30).ok
    path = committed(gateway, told["upload_id"]).json()["image_path"]
    assert path.endswith(".png")
    assert gateway.get(path).content.startswith(b"\x89PNG")
    assert staged(gateway) == []


def test_a_file_larger_than_announced_is_never_accepted(make_gateway: Any) -> None:
    gateway = make_gateway(upload_max_bytes=20_000)
    small, large = picture(64, 48), picture(1600, 1200, format="PNG")
    assert len(large) > 20_000
    presigned = announced(gateway, small).json()
    put = requests.put(presigned["url"], data=large, headers={"Content-Type": "image/jpeg"}, timeout=30)
    answer = committed(gateway, presigned["upload_id"])
    assert (put.status_code, answer.status_code) in {(403, 409), (200, 413)}
    assert gateway.rows("select 1 from pending_images") == []


def test_the_url_writes_one_object_and_reads_none(gateway: Gateway) -> None:
    data = picture()
    url = announced(gateway, data).json()["url"]
    assert requests.get(url, timeout=30).status_code == 403
    other = url.replace("/staging/", "/bulk/")
    assert requests.put(other, data=data, headers={"Content-Type": "image/jpeg"}, timeout=30).status_code == 403
    assert requests.put(url.partition("?")[0], data=data, timeout=30).status_code in {400, 403}


def test_an_upload_that_was_not_committed_in_time_is_over_and_garbage(gateway: Gateway) -> None:
    upload = sent(gateway, picture())
    gateway.rows("update media_uploads set expires_at = now() - interval '1 s'")
    assert committed(gateway, upload).status_code == 410
    (found,) = collect_garbage(gateway.services, ["media"], act=True, grace_hours=-1)
    assert found.deleted == 1
    assert staged(gateway) == []


def test_an_announced_upload_can_be_private_from_its_first_moment(gateway: Gateway) -> None:
    path = committed(gateway, sent(gateway, picture(), private=True)).json()["image_path"]
    assert gateway.get(path).status_code == 401
    assert gateway.get(path, **gateway.as_worker).status_code == 200
    gateway.run_due()
    assert gateway.get("/serve/1").json()["code"] == "private-image"
    assert gateway.session.get(gateway.me(USER)["profile_image_path"], timeout=30).status_code == 200


def test_old_presigned_uploads_go_unless_nobody_has_read_yet_that_one_is_private(gateway: Gateway) -> None:
    sent(gateway, picture())
    private = sent(gateway, picture(seed=2), private=True)
    assert committed(gateway, private).status_code == 200
    gateway.rows("update media_uploads set expires_at = now() - interval '2 days' returning id")
    assert MEDIA.tidy(gateway.services, 1)["presigned_uploads"] == 1
    assert gateway.rows("select id from media_uploads") == [(private,)]
    gateway.run_due()
    assert MEDIA.tidy(gateway.services, 1)["presigned_uploads"] == 1


def test_nobody_announces_without_end(gateway: Gateway) -> None:
    assert announced(gateway, picture()).status_code == 201
    gateway.rows("""
        insert into media_uploads
            (id, user_id, field, original_name, content_type, bytes, private, object_key, expires_at)
        select n, user_id, field, original_name, content_type, bytes, private, n, expires_at
        from media_uploads, generate_series(1, 99) n returning id
    """)
    answer = announced(gateway, picture())
    assert (answer.status_code, answer.json()["code"]) == (429, "too-many-open")
    gateway.rows("delete from media_uploads where id in ('1', '2') returning id")
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda _: announced(gateway, picture()).status_code, range(8))
        assert sorted(answers) == [201] * 2 + [429] * 6, "also those that come together"
