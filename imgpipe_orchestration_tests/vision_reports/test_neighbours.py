"""An organization whose partners are slow beside one whose are not."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from imgpipe_orchestration.vision_reports.runs import SHARE
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import Server, serving
from imgpipe_orchestration_tests.vision_reports.conftest import Desk, listed_as

SLOW = "slow-organization"


class Dripping:
    """Answers everything with a byte now and then, until `over`."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.server: Server

    def behave(self, handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not self.over.wait(0.5):
            handler.wfile.write(b"x")
            handler.wfile.flush()
        handler.close_connection = True


@pytest.fixture
def dripping() -> Iterator[Dripping]:
    drip = Dripping()
    with serving(drip.behave) as drip.server:
        yield drip
        drip.over.set()


def entry(number: int, url: str) -> dict[str, Any]:
    document = {"document_name": f"{number}.jpg", "document_path": f"{url}/{number}.jpg", "document_type": "input"}
    return {"vision_analysis_id": f"S{number}", "organization_id": SLOW, "documents": [document]}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("slow_part", ["documents", "list"])
def test_what_is_slow_of_one_does_not_hold_up_the_good_one_of_another_that_comes_later(
    desk: Desk, dripping: Dripping, monkeypatch: pytest.MonkeyPatch, slow_part: str
) -> None:
    """And what was withdrawn ends soon: the run ends without waiting for the downloads."""
    monkeypatch.setenv("ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    with serving(listed_as(*(entry(number, dripping.server.url) for number in range(2 * SHARE)))) as api:
        listing = api.url if slow_part == "documents" else dripping.server.url
        slow = desk.asked(external_api_get_url=listing, external_api_post_url=api.url, organization_id=SLOW)
        run = threading.Thread(target=desk.run, daemon=True)
        run.start()
        wait_for(lambda: dripping.server.requests, "the slow part to be asked for", 60)
        desk.seed(images=1, descriptions=False)
        good = desk.asked()
        wait_for(lambda: desk.executions(good)[0]["status"] == "success", "the good one", 60)
        assert desk.executions(slow)[0]["status"] == "running" and run.is_alive()
        assert desk.api.delete(f"/cron-jobs/{slow}").status_code == 200
        run.join(90)
        assert not run.is_alive() and not dripping.over.is_set()
    assert len(dripping.server.requests) <= SHARE, "withdrawn work was not begun"
