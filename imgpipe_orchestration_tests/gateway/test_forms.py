"""Forms that break off before their end, sent to a gateway that really listens."""

from __future__ import annotations

import re
from contextlib import closing
from http.client import HTTPConnection

import pytest
import requests

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture

ROUTES = {
    ("PATCH", "/users/me"): ("bio", "profile_image"),
    ("POST", "/api/upload/listing_image"): ("listing_title", "images"),
    ("POST", "/batch-analysis/images"): ("organization_id", "files"),
    ("POST", "/upload"): ("note", "file"),
    ("POST", "/listings"): ("listing_title", "images"),
}
"""The routes that take files, each with one of its text fields and one for a file."""

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
    return headers if route[1] in {"/upload", "/listings"} else headers | gateway.as_user(7)


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
def test_who_leaves_in_the_middle_of_a_form_is_no_fault_of_ours(
    gateway: Gateway, route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    method, path = route
    body = form(route)
    with closing(HTTPConnection("127.0.0.1", gateway.settings.gateway_port, timeout=10)) as connection:
        headers = credentials(gateway, route) | {"Content-Length": str(len(body))}
        connection.request(method, path, body[:-40], headers)

    def counted() -> list[str]:
        line = f'requests_total.method="{method}",route="{path}",status="([0-9]+)"'
        return re.findall(line, gateway.get("/metrics").text)

    wait_for(counted, "the request to be counted")
    assert counted() == ["400"]
    assert "unhandled error" not in caplog.text
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


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[1])
def test_quotation_marks_in_a_files_name_that_browsers_and_curl_write_as_22_are_kept_as_marks(
    gateway: Gateway, route: Route
) -> None:
    body = form(route).replace(b'"a.jpg"', b'"the %22blue%22 bowl 50%.jpg"')
    assert sent(gateway, route, body).status_code in {200, 202, 303}
    tables = ("original_name from pending_images", "original_name from image_queue", "name from vision_uploads")
    names = [str(name) for table in tables for (name,) in gateway.rows(f"select {table}")]
    assert names == ['the "blue" bowl 50%.jpg']
