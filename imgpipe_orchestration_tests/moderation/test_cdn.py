"""What a CDN has kept of an image goes when the image is held or rejected, and does not come back."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from time import monotonic

import requests

from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.lifecycle.conftest import call, purge
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.moderation.conftest import process, send
from imgpipe_orchestration_tests.partners.wire import reply, serving


class Cdn:
    """Keeps what it may of an origin's answers, by path, until their tag is purged."""

    def __init__(self, url: str) -> None:
        self.url, self.origin = url, ""
        self.kept: dict[str, str] = {}
        self.purged: list[str] = []

    def status(self, path: str) -> int:
        if path in self.kept:
            return 200
        answer = requests.get(self.origin + path, timeout=30)
        if answer.status_code == 200 and "no-store" not in answer.headers["Cache-Control"]:
            self.kept[path] = answer.headers["Cache-Tag"]
        return answer.status_code

    def purge(self, tags: list[str]) -> None:
        self.purged += tags
        self.kept = {path: tag for path, tag in self.kept.items() if tag not in tags}


@contextmanager
def caching() -> Iterator[Cdn]:
    def purge(handler: BaseHTTPRequestHandler, _: int) -> None:
        cdn.purge(json.loads(handler.sent)["tags"])  # type: ignore[attr-defined]  # by `serving`
        reply(handler, status=204)

    with serving(purge) as server:
        cdn = Cdn(server.url)
        yield cdn


def test_a_cdn_is_told_when_no_gateway_can_give_it_the_image_again(
    make_gateway: Callable[..., Gateway], standins: StandInAccess
) -> None:
    with caching() as cdn:
        gateway = make_gateway(**standins.seeing, cdn_purge="webhook", cdn_purge_url=cdn.url, reports_to_hold=1)
        other = make_gateway(**standins.seeing)
        cdn.origin = other.url
        sent = send(gateway, picture(seed=40))
        process(gateway)
        path = f"/serve/{sent.media_id}"
        assert (cdn.status(path), cdn.status(sent.listing)) == (200, 200)
        assert len(cdn.kept) == 2

        def forgotten(path: str, status: int) -> bool:
            purge(gateway)
            return cdn.status(path) == status

        began = monotonic()
        assert call(gateway, "POST", f"/api/media/{sent.media_id}/report", 7, json={"reason": "Mine"}).json()["counted"]
        assert gateway.get(path).status_code == 403
        wait_for(lambda: forgotten(path, 403), "the CDN to forget what is held", 30)
        assert monotonic() - began >= 5, "a gateway that is cut off may give it so long"
        assert f"media-{sent.media_id}" in cdn.purged
        assert cdn.status(sent.listing) == 200
        call(gateway, "POST", f"/api/moderation/{sent.media_id}", json={"decision": "reject"})
        wait_for(lambda: forgotten(sent.listing, 410), "the CDN to forget the same bytes, which are rejected", 30)
        assert cdn.kept == {}
