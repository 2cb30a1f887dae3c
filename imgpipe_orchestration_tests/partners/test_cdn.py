"""Purging a CDN by tags, against stand-ins that speak the protocols of Cloudflare and Fastly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from imgpipe_orchestration.errors import PartnerRefused, SettingsError, UnreadableAnswer
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.partners.cdn import Cdn
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction


@contextmanager
def answering(status: int, body: Any) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server that gives one answer to everything, and what it was asked."""
    asked: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked.append((dict(self.headers.items()), sent))
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/purge", asked
        server.shutdown()


def test_cloudflare_is_sent_tags_and_has_to_say_that_it_took_them() -> None:
    with answering(200, {"success": True, "errors": [], "result": {"id": "z"}}) as (url, asked):
        Cdn("cloudflare", url, "secret").purge(["media-1", "media-2"])
    headers, sent = asked[0]
    assert (headers["Authorization"], json.loads(sent)) == ("Bearer secret", {"tags": ["media-1", "media-2"]})
    with (
        answering(200, {"success": False, "errors": [{"code": 1012}]}) as (url, _),
        pytest.raises(UnreadableAnswer),
    ):
        Cdn("cloudflare", url, "secret").purge(["media-1"])


def test_fastly_is_sent_surrogate_keys() -> None:
    with answering(200, {"media-1": "1-2-3", "media-2": "4-5-6"}) as (url, asked):
        Cdn("fastly", url, "secret").purge(["media-1", "media-2"])
    headers, _ = asked[0]
    assert (headers["Fastly-Key"], headers["Surrogate-Key"]) == ("secret", "media-1 media-2")


def test_a_webhook_may_refuse_and_an_address_is_needed() -> None:
    with answering(403, {}) as (url, _), pytest.raises(PartnerRefused):
        Cdn("webhook", url, "").purge(["media-1"])
    with pytest.raises(SettingsError, match="CDN_PURGE_URL"):
        Cdn("webhook", "", "").purge(["media-1"])


def test_what_was_ordered_is_sent_until_it_was_taken(settings: Settings) -> None:
    with answering(500, {}) as (url, _):
        services = Services(settings.model_copy(update={"cdn_purge": "webhook", "cdn_purge_url": url}))
        with transaction(services.engine) as connection:
            cdn.order(services, connection, ["media-1", "media-1", "media-2"])
        assert cdn.send_due(services, "run-0") == 0 and not services.claims.held_up(), "a gateway may know it still"
        services.claims.hasten(cdn.CDN_PURGES)
        assert cdn.send_due(services, "run-1") == 0
        assert services.claims.held_up()
        services.close()
    with answering(200, {}) as (url, asked):
        services = Services(settings.model_copy(update={"cdn_purge": "webhook", "cdn_purge_url": url}))
        services.claims.hasten(cdn.CDN_PURGES)
        assert cdn.send_due(services, "run-2") == 3
        assert json.loads(asked[0][1]) == {"tags": ["media-1", "media-2"]}
        services.close()
