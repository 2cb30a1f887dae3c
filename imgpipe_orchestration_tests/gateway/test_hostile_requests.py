"""What no well-meaning client sends, said byte by byte to a gateway that really listens."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import jwt
import pytest
import requests

from imgpipe_orchestration.gateway import bodies
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.web.headers import HEADERS
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.gateway.test_limits import spoken
from imgpipe_orchestration_tests.media.conftest import picture

Address = tuple[str, int]


@pytest.fixture
def address(settings: Settings) -> Iterator[Address]:
    with live(settings, ws="none") as url:
        yield "127.0.0.1", urlsplit(url).port or 0


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *lines, "", ""]).encode()


def dripped(address: Address, begun: bytes, drop: bytes, pause: float, most: float) -> bytes:
    """What is said to somebody who goes on sending `drop` for ever."""
    started = time.monotonic()
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(begun)
        connection.settimeout(pause)
        answer = b""
        while time.monotonic() - started < most:
            try:
                connection.sendall(drop)
                piece = connection.recv(65536)
            except TimeoutError:
                continue
            except OSError:  # closed: what was said before it may still be read
                with suppress(OSError):
                    answer += connection.recv(65536)
                break
            if not piece:
                break
            answer += piece
        else:
            pytest.fail(f"still listening after {most} s")
    return answer


def guarded(answer: bytes) -> bool:
    """Whether the answer has the headers that all have."""
    said = answer.partition(b"\r\n\r\n")[0].decode("latin-1").lower()
    return all(f"\r\n{name}: {value}".lower() in said for name, value in HEADERS.items())


FORM = ("POST", "/api/upload/listing_image", "Content-Type: multipart/form-data; boundary=b")
FIELD = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n\r\n'


CHUNKED = "Transfer-Encoding: chunked"
ENDLESS = {
    "a body": (head("POST", "/api/jobs", "Content-Length: 100000"), b"x"),
    "a file": (head(*FORM, "Content-Length: 100000") + FIELD, b"x"),
    "chunks": (head(*FORM, CHUNKED) + b"%x\r\n%b\r\n" % (len(FIELD), FIELD), b"1\r\nx\r\n"),
}


def test_a_body_that_drips_is_cut_off_though_it_never_pauses(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 1.5)
    with ThreadPoolExecutor(len(ENDLESS)) as pool:
        ends = {what: pool.submit(dripped, address, *sent, 0.05, 60) for what, sent in ENDLESS.items()}
    for what, end in ends.items():
        assert end.result().startswith(b"HTTP/1.1 408"), what


def test_ten_gigabytes_are_refused_when_they_are_announced(address: Address) -> None:
    for path in ("/api/upload/listing_image", "/api/jobs"):
        lines = ("Content-Type: multipart/form-data; boundary=b", f"Content-Length: {10 * 1024**3}")
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(head("POST", path, *lines))
            assert connection.recv(65536).startswith(b"HTTP/1.1 413 "), path


TWO_MEANINGS = (
    ("Content-Length: 5", "Transfer-Encoding: chunked"),
    ("Content-Length: 5", "Content-Length: 6"),
    ("Content-Length: -1",),
    ("Transfer-Encoding: identity, chunked, x",),
    ("X-A: b\0c",),
    ("X A: b",),
)


def test_a_head_with_two_meanings_is_no_request(address: Address) -> None:
    second = b"0\r\n\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    for lines in TWO_MEANINGS:
        answer = spoken(f"http://127.0.0.1:{address[1]}", head("POST", "/api/jobs", *lines) + second)
        assert answer.startswith(b"HTTP/1.1 400 "), lines
        assert answer.count(b"HTTP/1.1 ") == 1, lines


def test_who_asks_for_a_websocket_is_answered_as_if_not(address: Address) -> None:
    asked = ("Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    for path, status in (("/health/live", b"200"), ("/no/such/path", b"404")):
        answer = spoken(f"http://127.0.0.1:{address[1]}", head("GET", path, *asked, "Connection: Upgrade, close"))
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert guarded(answer)


SLOW_TO_READ = {
    "a cookie of quoted backslashes": (head("GET", "/health/live", 'Cookie: a="' + "\\" * 60_000 + '"'), b"200"),
    "texts in Punycode": (
        head(
            "POST",
            "/login",
            "Content-Type: multipart/form-data; boundary=b; charset=punycode",
            "Content-Length: 800061",
            "Connection: close",
        )
        + b'--b\r\nContent-Disposition: form-data; name="key"\r\n\r\n'
        + b"a" * 400_000
        + b"-"
        + b"a" * 400_000
        + b"\r\n--b--\r\n",
        b"415",
    ),
}


@pytest.mark.parametrize("what", SLOW_TO_READ)
def test_nothing_takes_long_to_read_for_its_size(address: Address, what: str) -> None:
    said, status = SLOW_TO_READ[what]
    started = time.monotonic()
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(said)
        assert connection.recv(65536).startswith(b"HTTP/1.1 " + status)
    assert time.monotonic() - started < 10  # what grows with the square of the size takes minutes


NAMES = (
    b"a\\r\\nSet-Cookie: evil=1.jpg",
    b"a%0d%0aSet-Cookie:%20evil=1.jpg",
    b"a\x0bSet-Cookie: evil=1.jpg",
    b"<script>alert(1)</script>.jpg",
    b"../../../etc/passwd",
    b"\xff\xfe.jpg",
    b"a" * 3000 + b".jpg",
    b"a",
)


def test_a_file_name_becomes_neither_a_header_nor_a_path(address: Address, settings: Settings) -> None:
    url = f"http://{address[0]}:{address[1]}"
    token = jwt.encode({"sub": "7", "exp": 4_000_000_000}, settings.user_jwt_secret, "HS256")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "multipart/form-data; boundary=b"}
    for name in NAMES:
        field = b'--b\r\nContent-Disposition: form-data; name="profile_image"; filename="' + name + b'"\r\n\r\n'
        body = field + picture(64, 64) + b"\r\n--b--\r\n"
        answer = requests.patch(f"{url}/users/me", data=body, headers=headers, timeout=30)
        assert "Set-Cookie" not in answer.headers
        assert answer.status_code == 200, name
        path = answer.json()["images"][0]["image_path"]
        assert path.startswith("/temp_images/profiles/7-profile-")
        shown = requests.get(url + path, timeout=30)
        assert shown.headers["Content-Type"] == "image/jpeg"
        assert "evil" not in str(shown.headers)


PREFIXES = (
    *("/temp_images/", "/temp_images/profiles/", "/components/", "/static/", "/docs/", "/serve/", "/api/images/"),
    *("/storage/v1/object/public/listing-images/", "/avatars/1/1/", "/batch-analysis/batches/", "/api/jobs/"),
)
CLIMBS = (
    *("../../../etc/passwd", "..%2f..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/pyproject.toml", "....//etc/passwd"),
    *("..%5c..%5cetc", "%00", "a%00.jpg", "%c0%ae%c0%ae/etc/passwd", "/etc/passwd", "originals/1", "a%0d%0aX:%20y"),
)


def test_no_path_climbs_out(address: Address) -> None:
    for prefix in PREFIXES:
        for climb in CLIMBS:
            answer = spoken(f"http://127.0.0.1:{address[1]}", head("GET", prefix + climb, "Connection: close"))
            status = int(answer.split(b" ", 2)[1])
            assert 300 <= status < 500, f"{prefix}{climb}: {answer[:200]!r}"
            assert b"root:" not in answer
