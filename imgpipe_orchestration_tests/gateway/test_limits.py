"""What one caller may cost, asked of a gateway that really listens."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import jwt
import pytest
import requests

from imgpipe_orchestration.gateway import bodies, limits
from imgpipe_orchestration.gateway.__main__ import _listen, host_of
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.gateway.bodies import AT_ONCE
from imgpipe_orchestration.gateway.limits import LimitRequests, Rate
from imgpipe_orchestration.gateway.session import COOKIE
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.lacking import lacking

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

KEYS = {
    name: f"a-good-key-of-at-least-32-bytes-for-{name}"
    for name in ("media_api_key", "main_api_key", "admin_api_key", "backend_api_key", "user_jwt_secret", "secret_key")
}


def produced(settings: Settings, **more: object) -> Settings:
    return settings.model_copy(update={"imgpipe_env": "production", **KEYS, **more})


def token(**claims: object) -> str:
    return jwt.encode({"sub": "7", "exp": time.time() + 60, **claims}, KEYS["user_jwt_secret"], "HS256")


def spoken(url: str, *pieces: bytes, pause: float = 0.0) -> bytes:
    """All that the gateway says to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


def test_bodies_are_held_to_size_and_time_with_or_without_a_length(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_BYTES", 2048)
    with live(settings) as url:
        announced = requests.post(f"{url}/api/jobs", data=b"x" * 3_000_000, timeout=10)
        assert (announced.status_code, announced.json()["code"]) == (413, "too-large")
        assert announced.headers["X-Content-Type-Options"] == "nosniff"

        chunked = requests.post(f"{url}/api/jobs", data=iter([b"x" * 1000] * 3000), timeout=10)
        assert (chunked.status_code, chunked.json()["code"]) == (413, "too-large")

        field = b"--b\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n"
        upload = requests.post(
            f"{url}/batch-analysis/images",
            data=iter([field, *[b"x" * (1 << 20)] * 3, b"\r\n--b--\r\n"]),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
            timeout=10,
        )
        assert upload.status_code == 422  # three megabytes are read here
        assert upload.json()["field"] == "organization_id"

        small = requests.post(f"{url}/api/jobs", json={"id": "nothing"}, timeout=10)
        assert small.status_code == 422

        monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.3)
        head = b"POST /api/jobs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        assert spoken(url, head, b'{"id":').startswith(b"HTTP/1.1 408 ")


def test_an_upload_that_the_servers_end_cuts_off_is_told_so(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    lines = ("POST /api/upload/listing_image HTTP/1.1", "Host: x", "Content-Length: 1000", "Expect: 100-continue")
    form = "Content-Type: multipart/form-data; boundary=b"
    with ExitStack() as server:
        port = urlsplit(server.enter_context(live(settings))).port
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall("\r\n".join([*lines, form, "", "--b"]).encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")  # so the body is being read
            server.close()
            answer = b"".join(iter(partial(connection.recv, 65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"Nothing was stored; send it again." in answer
    assert "Traceback" not in caplog.text


def test_a_compressed_body_is_refused_as_one(client: Client) -> None:
    compressed = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=b"}
    for path in ("/api/upload/listing_image", "/api/jobs"):
        answer = client.post(path, content=gzip.compress(b"--b--"), headers=compressed)
        assert (answer.status_code, answer.json()["code"]) == (415, "compressed")
    as_it_is = client.post("/api/jobs", json={}, headers={"Content-Encoding": "Identity"})
    without_body = client.delete("/api/jobs/nothing", headers={"Content-Encoding": "gzip"})
    assert 415 not in {as_it_is.status_code, without_body.status_code}


def test_a_stranger_in_production_is_refused_before_the_upload_is_read(settings: Settings) -> None:
    with live(produced(settings)) as url:
        for path in ("/api/upload/listing_image", "/batch-analysis/images", "/upload", "/listings"):
            for credential in ("", "Authorization: Bearer wrong\r\n"):
                head = (
                    f"POST {path} HTTP/1.1\r\nHost: a\r\nCookie: {COOKIE}=forged\r\n{credential}"
                    "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 3000000\r\n\r\n"
                )
                with socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=10) as connection:
                    connection.sendall(head.encode())
                    assert connection.recv(13) == b"HTTP/1.1 401 ", (path, credential)


def test_who_shows_no_key_in_production_sends_little(settings: Settings) -> None:
    lists = b"[" + b"[]," * 30_000 + b"[]]"
    with Client(create_app(produced(settings))) as client:
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=forged"}):
            answer = client.post("/api/jobs", content=lists, headers={"Content-Type": "application/json", **wrong})
            assert (answer.status_code, answer.json()["detail"]) == (413, "The request is larger than 64 KB.")
        assert client.post("/login", data={"key": "x" * 100_000}).status_code == 413
        for name in ("media_api_key", "main_api_key", "admin_api_key", "backend_api_key"):
            answer = client.post("/api/jobs", content=lists, headers={"Authorization": f"Bearer {KEYS[name]}"})
            assert answer.status_code == (422 if name == "admin_api_key" else 401)
        answer = client.patch("/users/me", content=lists, headers={"Authorization": f"Bearer {token()}"})
        assert answer.status_code == 422
        assert client.post("/login", data={"key": KEYS["admin_api_key"]}).status_code == 200
        assert client.post("/processing/run", content=lists).status_code == 403


def test_the_pages_of_production_take_files_from_who_is_signed_in(settings: Settings) -> None:
    files = {"/upload": {"file": ("a.jpg", b"no image")}, "/listings": {"images": ("a.jpg", b"no image")}}
    with Client(create_app(produced(settings)), follow_redirects=False) as client:
        assert client.post("/login", data={"key": KEYS["admin_api_key"]}).status_code == 303
        operators = [client.post(path, files=sent) for path, sent in files.items()]
    assert [answer.status_code for answer in operators] == [403, 403]
    assert "form is out of date" in operators[1].text  # it was read, and looked at: the form's own token is missing


def test_a_form_of_a_page_that_is_too_large_or_too_slow_leads_back_to_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tight = settings.model_copy(update={"upload_max_bytes": 1000})
    with live(tight) as url:
        answer = requests.post(
            f"{url}/listings",
            files={"images": ("a.jpg", b"x" * 3_000_000)},
            headers={"Accept": "text/html", "Referer": f"{url}/listings"},
            timeout=10,
        )
        assert (answer.status_code, answer.headers["Content-Type"]) == (413, "text/html; charset=utf-8")
        assert "/listings?trouble=The+request+is+larger+than+1.1+MB." in answer.text
        monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.3)
        head = b"POST /listings HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\nContent-Length: 100\r\n"
        head += b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        assert spoken(url, head, b"images=").startswith(b"HTTP/1.1 408 ")


def test_wrong_keys_are_counted_and_then_refused_unseen(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WRONG_KEYS_PER_MINUTE", 3)
    with Client(create_app(produced(settings))) as client:
        wrong = [client.get("/api/avatars/tasks", headers={"Authorization": "Bearer no"}).status_code for _ in range(5)]
        right = client.get("/api/avatars/tasks", headers={"Authorization": f"Bearer {KEYS['admin_api_key']}"})
        none = client.get("/api/avatars/tasks")
    assert wrong == [401, 401, 401, 429, 429]
    assert right.status_code == 200, "others' guesses hold up nobody who has the key"
    assert none.status_code == 401


def test_uploads_are_held_to_their_rate_for_each_user(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "UPLOADS_PER_MINUTE", 2)
    first = token(sub="1")
    with Client(create_app(produced(settings))) as client:

        def upload(credential: str) -> int:
            answer = client.patch("/users/me", data={"bio": "x"}, headers={"Authorization": credential})
            return answer.status_code

        mine = [upload(f"Bearer {first}") for _ in range(3)]
        written_otherwise = [upload(f"bearer   {first}"), upload(f"Bearer {token(sub='1', exp=time.time() + 90)}")]
        theirs = upload(f"Bearer {token(sub='2')}")
    assert mine[2:] == [429]
    assert written_otherwise == [429, 429]
    assert theirs != 429


def test_a_rate_refills_and_forgets_nobody_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: now))
    rate = Rate(600)
    for _ in range(600):
        assert rate.wait("a") == 0
        rate.count("a")
    assert 0 < rate.wait("a") <= 0.1
    assert rate.wait("b") == 0
    now += 0.11
    assert rate.wait("a") == 0


def test_development_listens_on_loopback_only(settings: Settings) -> None:
    assert host_of(settings) == "127.0.0.1"
    assert host_of(produced(settings)) == "0.0.0.0"
    assert host_of(produced(settings, gateway_host="127.0.0.1")) == "127.0.0.1", "behind a proxy on this machine"


@pytest.mark.parametrize(("host", "reached"), [("::", {"127.0.0.1", "::1"}), ("0.0.0.0", {"127.0.0.1"})])
def test_the_gateway_listens_where_it_is_told_to(host: str, reached: set[str]) -> None:
    has_v6 = False
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        has_v6 = True
    if host == "::" and not has_v6:
        lacking("IPv6", "switch it on")
    with _listen(host, 0, "GATEWAY_PORT") as listener:
        port = listener.getsockname()[1]
        answering = set()
        for address in ("127.0.0.1", "::1"):
            with suppress(OSError), socket.create_connection((address, port), timeout=5):
                answering.add(address)
    assert answering == reached


def test_uploads_that_arrive_together_take_turns_once_they_are_whole(settings: Settings) -> None:
    """Or none of a thousand is answered before nearly all are, and nobody else meanwhile."""
    inside: set[int] = set()
    most, done = 0, []

    async def app(scope: Scope, receive: Receive, _: Send) -> None:
        nonlocal most
        while (await receive())["more_body"]:
            pass
        inside.add(scope["number"])
        most = max(most, len(inside))
        for _ in range(10):
            await asyncio.sleep(0)  # the others may go on
        inside.remove(scope["number"])
        done.append(scope["number"])
        if scope["number"] % 2:
            raise ZeroDivisionError  # gives the turn back like any other end

    async def upload(number: int, *, whole: bool) -> None:
        async def receive() -> Message:
            if not whole:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"x", "more_body": False}

        headers = [(b"content-length", b"1")]
        scope = {"type": "http", "method": "PATCH", "path": "/users/me", "headers": headers, "number": number}
        with suppress(ZeroDivisionError):
            await limits(scope, receive, unheard)

    async def unheard(_: Message) -> None:
        pass

    async def many() -> None:
        slow = [asyncio.create_task(upload(number, whole=False)) for number in range(2 * AT_ONCE)]
        await asyncio.gather(*[upload(number, whole=True) for number in range(5 * AT_ONCE)])
        for task in slow:
            task.cancel()

    limits = LimitRequests(app, settings, engine=lambda: connect(settings.database_url))
    asyncio.run(many())
    assert most == AT_ONCE
    assert done == list(range(5 * AT_ONCE))
