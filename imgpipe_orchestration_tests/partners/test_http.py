"""JSON over HTTP under bounds, and under the guard where a tenant named the address."""

import base64
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import pytest

from imgpipe_orchestration.errors import (
    Forbidden,
    PartnerRefused,
    PartnerUnavailable,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.http import JsonApi, at_host
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.telemetry.redaction import know
from imgpipe_orchestration_tests.partners.wire import reply, serving

ONCE = RetryPolicy(attempts=1, budget=5)


def test_an_address_of_a_tenant_may_not_be_private() -> None:
    with serving(lambda h, _: reply(h, b"{}")) as server:
        api = JsonApi("The backend", server.url, guard=Guard(), policy=ONCE)
        with pytest.raises(Forbidden):
            api.request_json("GET", "/")
        assert server.requests == []


def test_a_proxy_of_the_environment_cannot_lead_around_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda h, _: reply(h, b"{}")) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        api = JsonApi("The backend", "http://10.0.0.1", guard=Guard(), policy=ONCE)
        with pytest.raises(Forbidden):
            api.request_json("GET", "/")
        assert proxy.requests == []


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_proxy_of_the_environment_is_used_with_its_login_but_for_who_is_excepted(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(lambda h, _: reply(h, b"{}")) as proxy, serving(lambda h, _: reply(h, b"{}")) as near:
        used = f"{scheme}us%40er:pw@127.0.0.1:{proxy.port}"
        for name, value in {"http_proxy": used, "no_proxy": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
            monkeypatch.setenv(name.upper(), value)
        JsonApi("Far", "http://far.invalid", policy=ONCE).request_json("GET", "/a")
        JsonApi("Near", near.url, policy=ONCE).request_json("GET", "/b")
        assert (proxy.paths, near.paths) == (["http://far.invalid/a"], ["/b"])
    assert proxy.requests[0][1]["proxy-authorization"] == f"Basic {base64.b64encode(b'us@er:pw').decode()}"


def test_a_compressed_answer_is_not_unpacked_and_was_an_answer_so_that_it_is_asked_for_once() -> None:
    with serving(lambda h, _: reply(h, b'{"paid": "for"}', Content_Encoding="gzip")) as server:
        with pytest.raises(UnreadableAnswer, match="compressed by 'gzip'"):
            JsonApi("X", server.url).request_json("POST", "/")
        assert [headers["accept-encoding"] for _, headers, _ in server.requests] == ["identity"]


def hanging_up(handler: BaseHTTPRequestHandler, _: int) -> None:
    handler.close_connection = True


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("http://user:word@127.0.0.1:9/list?key=word", "connection refused"),
        ("http://nobody.invalid/list?key=word", "its name has no address"),
        ("https://127.0.0.1:{port}/list?key=word", "the TLS handshake failed"),
        ("http://127.0.0.1:{port}/list?key=word", "its answer is not HTTP, or not complete"),
    ],
)
def test_who_cannot_be_reached_is_named_with_the_reason_and_nothing_secret(where: str, reason: str) -> None:
    with serving(hanging_up) as server, pytest.raises(PartnerUnavailable) as caught:
        url = where.format(port=server.port)
        JsonApi(at_host("The backend", url), url, policy=ONCE).request("GET", "")
    host = urlsplit(url).netloc.removeprefix("user:word@")
    assert str(caught.value) == f"The backend at {host} could not be reached ({reason})"


def test_a_partner_that_repeats_our_key_in_a_redirect_does_not_get_it_into_the_error() -> None:
    know(["our-secret-key-of-many-letters"])
    away = serving(
        lambda h, _: reply(
            h,
            status=302,
            Location="https://evil.example/our-secret-key-of-many-letters/x?key=our-secret-key-of-many-letters",
        )
    )
    with away as server, pytest.raises(PartnerRefused) as caught:
        JsonApi("X", server.url, policy=ONCE).request("GET", "/")
    assert "evil.example" in caught.value.public and "our-secret-key-of-many-letters" not in caught.value.public
