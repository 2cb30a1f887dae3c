"""Downloads of links from outside: hostile addresses, hostile servers, connections that break."""

import logging
import socket
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from imgpipe_orchestration.errors import (
    BadInput,
    Forbidden,
    ImgpipeError,
    PartnerRefused,
    PartnerUnavailable,
    TooLarge,
)
from imgpipe_orchestration.partners.fetch import Fetcher
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.partners.wire import Server, reply, serving

CONTENT = bytes(range(256)) * 2000
QUICK = RetryPolicy(attempts=4, budget=20)


def fetcher(server: Server) -> Fetcher:
    return Fetcher(Guard.parse(f"127.0.0.1:{server.port}"))


def test_a_file_is_downloaded_whole(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving(lambda h, _: reply(h, CONTENT)) as server:
        assert fetcher(server).fetch_bytes(f"{server.url}/a/b.jpg?sig=secret") == CONTENT
    (record,) = (vars(one) for one in caplog.records if one.message == "downloaded")
    assert (record["url"], record["bytes"]) == (f"{server.url}/a/b.jpg", len(CONTENT))


# --- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "http://[::1]:{port}/",
        "http://[::ffff:127.0.0.1]:{port}/",
        "http://[64:ff9b::7f00:1]:{port}/",
        "http://2130706433:{port}/",
        "http://0x7f.1:{port}/",
        "http://0.0.0.0:{port}/",
        "http://127.1:{port}/",
        "http://127。0。0。1:{port}/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
    ],
)
def test_a_private_address_is_refused_in_whatever_spelling(url: str) -> None:
    with serving(lambda h, _: reply(h, b"internal")) as server:
        with pytest.raises((Forbidden, PartnerUnavailable)) as caught:
            Fetcher(Guard()).fetch_bytes(url.format(port=server.port), RetryPolicy(attempts=1, budget=5))
        assert server.requests == []
    if isinstance(caught.value, PartnerUnavailable):
        assert "cannot be resolved" in caught.value.public, "only a name that does not resolve may end otherwise"


def test_a_redirect_into_a_private_address_is_refused() -> None:
    with serving(lambda h, _: reply(h, b"internal")) as inside:
        away = serving(lambda h, _: reply(h, status=302, Location=f"{inside.url}/admin"))
        with away as outside, pytest.raises(Forbidden):
            fetcher(outside).fetch_bytes(outside.url, QUICK)
        assert inside.requests == []
        assert len(outside.requests) == 1, "refused at once, not tried again"


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://example.com/x", "gopher://127.0.0.1/", "http://[", "http://[::1", "//["]
)
def test_a_redirect_to_what_is_no_plain_web_link_is_refused(location: str) -> None:
    with serving(lambda h, _: reply(h, status=302, Location=location)) as server, pytest.raises(Forbidden):
        fetcher(server).fetch_bytes(server.url, QUICK)


def test_redirects_are_followed_but_not_for_ever() -> None:
    def redirect(handler: BaseHTTPRequestHandler, number: int) -> None:
        if handler.path == "/there":
            reply(handler, CONTENT)
        else:
            reply(handler, status=302, Location="/there" if handler.path == "/here" else "/loop")

    with serving(redirect) as server:
        assert fetcher(server).fetch_bytes(f"{server.url}/here", QUICK) == CONTENT
        with pytest.raises(PartnerRefused, match="redirects"):
            fetcher(server).fetch_bytes(f"{server.url}/loop", QUICK)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.com/a",
        "data:image/png;base64,AAAA",
        "//example.com/a",
        "http://user:pw@example.com/",
        "http:///a",
        "http://example.com/a b",
        "http://exa\nmple.com/",
        "http://example.com\\@127.0.0.1/",
        "http://[::1/",
        "",
    ],
)
def test_what_is_no_plain_web_link_is_refused(url: str) -> None:
    with pytest.raises(BadInput):
        Fetcher(Guard()).fetch_bytes(url)


@pytest.mark.parametrize(("trusted", "host"), [(True, "localhost"), (False, "localhost"), (True, "127.0.0.1")])
def test_https_needs_a_trusted_certificate_for_the_name_in_the_link(
    certificate: Path, trusted: bool, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting by number, as the guard does, must not weaken what TLS checks."""
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with serving(lambda h, _: reply(h, CONTENT), certificate=certificate) as server:
        fetch = Fetcher(Guard.parse("localhost, 127.0.0.1"))
        url, limits = f"https://{host}:{server.port}/", RetryPolicy(attempts=1, budget=5)
        if trusted and host == "localhost":
            assert fetch.fetch_bytes(url, limits) == CONTENT
        else:
            with pytest.raises(PartnerUnavailable, match="its certificate is not valid"):
                fetch.fetch_bytes(url, limits)


# --- sizes ---------------------------------------------------------------------------------------------------------


def test_a_file_that_announces_too_many_bytes_is_not_read() -> None:
    announced = str(200 * 1024 * 1024)
    with (
        serving(lambda h, _: reply(h, bytes(1000), Content_Length=announced)) as server,
        pytest.raises(TooLarge),
    ):
        fetcher(server).fetch_bytes(server.url, max_bytes=1_000_000)


def test_a_file_that_never_ends_stops_at_the_limit() -> None:
    def endless(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        while True:
            handler.wfile.write(bytes(65536))

    with serving(endless) as server, pytest.raises(TooLarge):
        fetcher(server).fetch_bytes(server.url, max_bytes=1_000_000)


# --- statuses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statuses", [(408, 425), (429, 503)])
def test_who_is_busy_or_failed_is_asked_again_after_the_wait_it_wants(statuses: tuple[int, int]) -> None:
    def busy(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number < len(statuses):
            reply(handler, status=statuses[number], Retry_After="0.3")
        else:
            reply(handler, CONTENT)

    began = time.monotonic()
    with serving(busy) as server:
        assert fetcher(server).fetch_bytes(server.url, QUICK) == CONTENT
    assert time.monotonic() - began >= 0.6
    with serving(lambda h, _: reply(h, status=403)) as server:
        with pytest.raises(PartnerRefused, match="403"):
            fetcher(server).fetch_bytes(server.url, QUICK)
        assert len(server.requests) == 1


SECRET = "c2VjcmV0LXNpZ25hdHVyZQ"


def test_no_signature_gets_into_errors_or_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="imgpipe_orchestration")

    def fail(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        elif number == 1:
            reply(handler, status=500)
        elif number == 2:
            reply(handler, status=302, Location=f"/b?sig={SECRET}")
        else:
            reply(handler, status=404)

    with serving(fail) as server, pytest.raises(ImgpipeError) as caught:
        fetcher(server).fetch_bytes(f"{server.url}/a?sig={SECRET}", QUICK)
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in f"{chain} {chain!r}"
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    assert caplog.text
    assert SECRET not in caplog.text


def test_a_download_that_broke_off_begins_anew(standins: StandInAccess) -> None:
    (analysis,) = standins.admin("POST", "vision-analyses", {"images": 1})
    standins.fault("files", "cut")
    fetch = Fetcher(Guard.parse("127.0.0.1/32"))
    assert fetch.fetch_bytes(analysis["documents"][0]["document_path"], QUICK).startswith(b"\xff\xd8")
