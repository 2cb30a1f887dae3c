"""Servers, proxies and resolvers that hold on to whoever asks: every client lets go in time."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from imgpipe_orchestration.errors import PartnerUnavailable
from imgpipe_orchestration.partners.fetch import Fetcher
from imgpipe_orchestration.partners.http import JsonApi
from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import tls_server

ONCE = RetryPolicy(attempts=1, budget=5)
LIMITS = RetryPolicy(attempts=1, budget=0.5)
LOCAL = Guard.parse("localhost, 127.0.0.1")

CLIENTS: dict[str, Callable[[str], Any]] = {
    "a download": lambda url: Fetcher(LOCAL).fetch_bytes(url, LIMITS),
    "an API": lambda url: JsonApi("X", url, timeout=0.5, policy=ONCE).request("GET", "/", limit=10**9),
    "OpenAI": lambda url: OpenAIClient("a key", base_url=url, timeout=0.5, policy=ONCE).models(),
}
"""Each asks one address once, with half a second for all of it."""

DRIPS = {
    "header": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "chunk extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;slow=", b"a"),
    "trailers": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Slow: 1\r\n"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103 Early Hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n", b"a"),
}
"""Answers that never end: how each begins, and what then comes again and again."""


@contextmanager
def dripping(begin: bytes, drop: bytes, *, every: float, certificate: Path | None = None) -> Iterator[int]:
    """A port where each connection is answered with `begin` and then `drop` until the other side hangs up."""
    over = threading.Event()

    def answer(accepted: socket.socket) -> None:
        with tls_server(certificate).wrap_socket(accepted, server_side=True) if certificate else accepted as connection:
            try:
                connection.recv(65536)
                connection.sendall(begin)
                while not over.wait(every):
                    connection.sendall(drop)
            except OSError:  # hung up, as wished
                return

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the test is over
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def given_up_in_time(*, not_before: float = 0.0) -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(PartnerUnavailable):
        yield
    assert not_before <= time.monotonic() - began < 30


@pytest.mark.parametrize("every", [0, 0.05])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("drip", DRIPS)
def test_a_server_that_drips_is_cut_off(drip: str, client: str, every: float) -> None:
    with dripping(*DRIPS[drip], every=every) as port, given_up_in_time():
        CLIENTS[client](f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_drips_over_tls_is_cut_off(
    client: str, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with dripping(*DRIPS["header"], every=0.05, certificate=certificate) as port, given_up_in_time(not_before=0.3):
        CLIENTS[client](f"https://localhost:{port}")


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_drips_its_handshake_is_cut_off(client: str) -> None:
    """The head of a TLS record of 16 kB, and then its bytes one by one."""
    with dripping(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03", b"a", every=0.05) as port, given_up_in_time():
        CLIENTS[client](f"https://localhost:{port}")


@pytest.mark.parametrize("client", ["an API", "OpenAI"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_drips_is_cut_off(client: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with dripping(*DRIPS["header"], every=0.05) as port:
        for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper()):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        with given_up_in_time():
            CLIENTS[client](f"{scheme}://partner.test")


@pytest.fixture
def hanging_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The system's resolver, which answers numbers and hangs for names, as one without a name server does; the names
    it was asked for."""
    real, asked, over = socket.getaddrinfo, [], threading.Event()

    def look_up(host: str, *more: Any, **options: Any) -> Any:
        if not host.replace(".", "").isdigit():
            asked.append(host)
            over.wait(30)
        return real(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    over.set()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_resolver_that_hangs_holds_nobody(client: str, hanging_resolver: list[str]) -> None:
    with given_up_in_time():
        CLIENTS[client]("http://localhost:9")
    wait_for(lambda: hanging_resolver, "the question")
    assert hanging_resolver == ["localhost"]


@pytest.mark.parametrize("client", ["an API", "OpenAI"])
def test_a_resolver_that_hangs_for_the_proxys_name_holds_nobody(
    client: str, hanging_resolver: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://proxy.test:3128")
    with given_up_in_time():
        CLIENTS[client]("http://partner.test")
    wait_for(lambda: hanging_resolver, "the question")
    assert hanging_resolver == ["proxy.test"]
