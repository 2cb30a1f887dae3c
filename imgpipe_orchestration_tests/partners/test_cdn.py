"""Purging a CDN by tags, against stand-ins that speak the protocols of Cloudflare and Fastly."""

import json

import pytest

from imgpipe_orchestration.errors import PartnerRefused, SettingsError, UnreadableAnswer
from imgpipe_orchestration.lifecycle import cdn
from imgpipe_orchestration.partners.cdn import Cdn
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.partners.wire import answering, reply, serving


def test_cloudflare_is_sent_tags_and_has_to_say_that_it_took_them() -> None:
    with answering({"success": True, "errors": [], "result": {"id": "z"}}) as server:
        Cdn("cloudflare", server.url, "secret").purge(["media-1", "media-2"])
    _, headers, sent = server.requests[0]
    assert (headers["authorization"], json.loads(sent)) == ("Bearer secret", {"tags": ["media-1", "media-2"]})
    with answering({"success": False, "errors": [{"code": 1012}]}) as server, pytest.raises(UnreadableAnswer):
        Cdn("cloudflare", server.url, "secret").purge(["media-1"])


def test_fastly_is_sent_surrogate_keys() -> None:
    with answering({"media-1": "1-2-3", "media-2": "4-5-6"}) as server:
        Cdn("fastly", server.url, "secret").purge(["media-1", "media-2"])
    _, headers, _ = server.requests[0]
    assert (headers["fastly-key"], headers["surrogate-key"]) == ("secret", "media-1 media-2")


def test_a_webhook_may_refuse_and_an_address_is_needed() -> None:
    with answering({}, 403) as server, pytest.raises(PartnerRefused):
        Cdn("webhook", server.url, "").purge(["media-1"])
    with pytest.raises(SettingsError, match="CDN_PURGE_URL"):
        Cdn("webhook", "", "").purge(["media-1"])


def test_what_was_ordered_is_sent_until_it_was_taken(settings: Settings) -> None:
    status = 500
    with serving(lambda h, _: reply(h, b"{}", status, Content_Type="application/json")) as server:
        services = Services(settings.model_copy(update={"cdn_purge": "webhook", "cdn_purge_url": server.url}))
        with transaction(services.engine) as connection:
            cdn.order(services, connection, ["media-1", "media-1", "media-2"])
        assert cdn.send_due(services, "run-0") == 0 and not services.claims.held_up(), "a gateway may know it still"
        services.claims.hasten(cdn.CDN_PURGES)
        assert cdn.send_due(services, "run-1") == 0
        assert services.claims.held_up()
        status = 401  # for an hour or a week: whoever changed the token has to tell us
        for attempt in range(cdn.CDN_PURGES.max_attempts):
            services.claims.hasten(cdn.CDN_PURGES)
            assert cdn.send_due(services, f"refused-{attempt}") == 0
        status = 200
        services.claims.hasten(cdn.CDN_PURGES)
        assert cdn.send_due(services, "run-2") == 3
        assert json.loads(server.requests[-1][2]) == {"tags": ["media-1", "media-2"]}
        services.close()
