"""Forms as clients write them, and forms that break off, sent to a gateway that really listens."""

import base64
import re
from datetime import UTC, datetime

import pytest
import requests

from imgpipe_orchestration.media import pending
from imgpipe_orchestration.media.intake import register
from imgpipe_orchestration.media.model import PendingStatus
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

ROUTES = {
    ("PATCH", "/users/me"): ("bio", "profile_image"),
    ("POST", "/api/upload/listing_image"): ("listing_title", "images"),
    ("POST", "/batch-analysis/images"): ("organization_id", "files"),
    ("POST", "/upload"): ("note", "file"),
    ("POST", "/listings"): ("listing_title", "images"),
}
"""The routes that take files, each with one of its text fields and one for a file."""

API = [route for route in ROUTES if route[1] not in {"/upload", "/listings"}]
"""Those for programs; browsers send a file's name in one way."""

PHOTO = picture(64, 64)
Route = tuple[str, str]


def form(route: Route) -> bytes:
    text, file = ROUTES[route]
    head = f'--b\r\nContent-Disposition: form-data; name="{text}"\r\n\r\nsome text\r\n--b\r\n'
    head += f'Content-Disposition: form-data; name="{file}"; filename="a.jpg"\r\n\r\n'
    return head.encode() + PHOTO + b"\r\n--b--\r\n"


def credentials(gateway: Gateway, route: Route) -> dict[str, str]:
    token = re.search('data-token="([0-9a-f]+)"', gateway.get("/upload").text)
    assert token is not None
    headers = {"Content-Type": "multipart/form-data; boundary=b", "X-Form-Token": token[1]}
    of_a_user = route[1] not in {"/upload", "/listings", "/batch-analysis/images"}
    return headers | gateway.as_user(7) if of_a_user else headers


def sent(gateway: Gateway, route: Route, *pieces: bytes) -> requests.Response:
    """Pieces are chunks; one alone comes with its length."""
    method, path = route
    body = pieces[0] if len(pieces) == 1 else iter(pieces)
    headers = credentials(gateway, route)
    return requests.request(method, gateway.url + path, data=body, headers=headers, timeout=30, allow_redirects=False)


def kept(gateway: Gateway) -> list[str]:
    services = gateway.services
    buckets = (services.media_bucket, services.listings_bucket, services.vision_bucket)
    rows = gateway.rows("select image_path from pending_images union all select file_name from image_queue")
    rows += gateway.rows("select bio from user_profiles")
    return [found.key for bucket in buckets for found in bucket.list()] + [str(row) for row in rows]


BREAKS = {
    "before the last boundary": len(b"--b--\r\n"),
    "within the last boundary": len(b"--\r\n"),
    "a byte before its end": len(b"-\r\n"),
    "within the file": len(b"\r\n--b--\r\n") + 20,
    "within the file's head": len(PHOTO) + 20,
    "before the file": len(PHOTO) + 90,
}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[1])
def test_a_form_that_breaks_off_is_refused_and_nothing_of_it_is_stored(gateway: Gateway, route: Route) -> None:
    whole = form(route)
    for where, missing in BREAKS.items():
        cut = whole[:-missing]
        for pieces in ((cut,), (cut[:100], cut[100:])):
            answer = sent(gateway, route, *pieces)
            assert answer.status_code == 400, where
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert answer.json()["code"] == "incomplete-body"
            assert "incomplete" in answer.json()["detail"]
    assert kept(gateway) == []


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[1])
def test_a_whole_form_is_taken_in_pieces_of_any_size(gateway: Gateway, route: Route) -> None:
    whole = form(route)
    end = len(whole) - 12
    for pieces in (
        (whole,),
        (whole.removesuffix(b"\r\n"),),
        (whole + b"an epilogue",),
        (whole[:end], *(whole[n : n + 1] for n in range(end, len(whole)))),
    ):
        assert sent(gateway, route, *pieces).status_code in {200, 202, 303}
    assert kept(gateway) != []


def test_what_is_told_of_many_refused_files_fits_into_a_header(gateway: Gateway) -> None:
    files = [("images", (f"{'写真' * 20}{n}.jpg", b"some text")) for n in range(36)] + [("images", ("a.jpg", PHOTO))]
    token = {"X-Form-Token": credentials(gateway, ("POST", "/listings"))["X-Form-Token"]}
    answer = requests.post(f"{gateway.url}/listings", files=files, headers=token, timeout=30, allow_redirects=False)
    told = answer.headers["Location"]
    assert "notice=1+image+queued" in told and "trouble=36+files+were+refused.+" in told
    assert len(told) < 4000, "nginx answers 502 instead"


NAMES = {
    "filename*=UTF-8''caf%C3%A9.jpg": "café.jpg",
    "filename*=utf-8''%E6%88%BF%E9%97%B4.jpg; filename=\"room.jpg\"": "房间.jpg",
    "filename=\"=?utf-8?B?Y2Fmw6kuanBn?=\"; filename*=utf-8''caf%C3%A9.jpg": "café.jpg",
    "filename=\"%E5%B1%8B.jpg\"; filename*=UTF-8''%E5%B1%8B.jpg": "屋.jpg",
    "filename=\"plain.jpg\"; filename*=iso-8859-1'en'caf%E9.jpg": "café.jpg",
    "filename*0*=UTF-8''caf%C3; filename*1*=%A9.jpg": "café.jpg",
    "filename*=UTF-8''a%22b%0D%0AX-Header:%20c.jpg": 'a"bX-Header: c.jpg',
    "filename*=UTF-8''gpj.%E2%80%AEphoto%1B%5B2J.jpg": "gpj.photo[2J.jpg",
    'filename="gpj.\u202ephoto\u009b2J.jpg"': "gpj.photo2J.jpg",
    'filename="100%25 caf%C3%A9.jpg"': "100%25 caf%C3%A9.jpg",
}
"""How clients write the name of a file, and what is kept of it."""


def names(gateway: Gateway) -> list[str]:
    tables = ("original_name from pending_images", "original_name from image_queue", "name from vision_uploads")
    return [str(name) for table in tables for (name,) in gateway.rows(f"select {table} order by id")]


@pytest.mark.parametrize("route", API, ids=lambda route: route[1])
def test_a_file_has_its_name_in_every_way_that_clients_write_it(gateway: Gateway, route: Route) -> None:
    for written in NAMES:
        answer = sent(gateway, route, form(route).replace(b'filename="a.jpg"', written.encode()))
        assert answer.status_code in {200, 202, 303}, (written, answer.text)
    assert sorted(names(gateway)) == sorted(NAMES.values())


def encoded(route: Route, encoding: str, data: bytes) -> bytes:
    head = f'filename="a.jpg"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n'.encode()
    return form(route).replace(b'filename="a.jpg"\r\n\r\n' + PHOTO, head + data)


@pytest.mark.parametrize("route", API, ids=lambda route: route[1])
def test_a_preamble_and_the_encoding_that_is_none_are_taken(gateway: Gateway, route: Route) -> None:
    plain = form(route)
    preamble = b"This is a form.\r\nIts parts begin below --b and --bb.\r\n" + plain
    for whole in (preamble, b"\r\n" + plain, encoded(route, "binary", PHOTO)):
        for pieces in ((whole,), (whole[:21], *(whole[n : n + 97] for n in range(21, len(whole), 97)))):
            answer = sent(gateway, route, *pieces)
            assert answer.status_code in {200, 202}, (whole[:200], answer.text)
    assert len(names(gateway)) == 6


@pytest.mark.parametrize("route", API, ids=lambda route: route[1])
def test_a_part_that_is_encoded_is_refused_by_the_encoding_s_name(gateway: Gateway, route: Route) -> None:
    answer = sent(gateway, route, encoded(route, "base64", base64.b64encode(PHOTO)))
    assert (answer.status_code, answer.json()["code"]) == (400, "unreadable-form")
    assert "base64" in answer.json()["detail"]
    assert kept(gateway) == []


def test_a_file_s_name_that_another_service_wrote_is_cleaned_too(gateway: Gateway) -> None:
    """As is that of a direct upload; see there."""
    services = gateway.services
    with transaction(services.engine) as connection:
        image = pending.PendingImage(
            1, 7, "/temp_images/profiles/profile_7_1.jpg", "gpj.\u202ea\x1b[2J.jpg", "image/jpeg", None,
            PendingStatus.PENDING, datetime.now(UTC),
        )  # fmt: skip
        register(services, connection, image)
    assert gateway.rows("select original_name from media_files") == [("gpj.a[2J.jpg",)]
