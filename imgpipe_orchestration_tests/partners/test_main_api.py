"""Callbacks to the main API, and temp files from it."""

import json
from pathlib import Path

import pytest

from imgpipe_orchestration.errors import BadInput, PartnerRefused, TooLarge
from imgpipe_orchestration.partners.main_api import HEADER, MainApi, verify
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration_tests.partners.wire import reply, serving

KEY = "main-key"
QUICK = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02, budget=5)


def test_a_callback_is_signed_and_carries_the_bearer_and_an_idempotency_key() -> None:
    payload = {"processing_complete": True, "media_id": "7", "formats_available": ["avif"]}
    with serving(lambda h, _: reply(h, b'{"success": true}')) as server:
        answer = MainApi(server.url + "/", KEY).complete(123, payload)
        path, headers, body = server.requests[0]
    assert answer == {"success": True}
    assert path == "/api/media/complete/123"
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["idempotency-key"].startswith("complete-123-")
    assert json.loads(body) == payload
    verify(headers[HEADER.lower()], body, KEY)


def test_a_temp_file_beyond_the_limit_is_not_taken() -> None:
    with serving(lambda h, _: reply(h, bytes(1000))) as server, pytest.raises(TooLarge):
        MainApi(server.url, KEY, policy=QUICK).fetch_temp("/temp_images/x.jpg", limit=100)


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "http://evil.example/x", "@evil.example/x", "/a/../../b", "", "/a\\..\\b", "/a?b#c"]
)
def test_a_path_cannot_lead_elsewhere(path: str) -> None:
    with serving(lambda h, _: reply(h, b"x")) as server:
        with pytest.raises(BadInput):
            MainApi(server.url, KEY).fetch_temp(path, limit=10)
        assert server.requests == []


def test_a_redirect_is_not_followed_with_our_key() -> None:
    with serving(lambda h, _: reply(h, b"stolen")) as other:
        away = serving(lambda h, _: reply(h, status=302, Location=f"{other.url}/login?token=secret"))
        with away as server, pytest.raises(PartnerRefused) as caught:
            MainApi(server.url, KEY, policy=QUICK).complete(1, {})
        assert caught.value.public == f"The main API redirected to {other.url}/login, which is not followed (HTTP 302)"
        assert other.requests == []


def test_netrc_does_not_replace_our_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(lambda h, _: reply(h, b"{}")) as server:
        MainApi(server.url, KEY).cleanup(1)
        assert server.requests[0][1]["authorization"] == f"Bearer {KEY}"
