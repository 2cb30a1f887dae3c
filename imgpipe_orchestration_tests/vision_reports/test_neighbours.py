"""An organization whose partners are slow beside one whose are not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

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


@contextmanager
def running(desk: Desk) -> Iterator[threading.Thread]:
    """A run of the job at work meanwhile."""
    run = threading.Thread(target=desk.run, daemon=True)
    run.start()
    yield run


def good_one(desk: Desk) -> str:
    """A job with one good image, asked to run."""
    desk.seed(images=1, descriptions=False)
    job = desk.job()
    desk.ask(job)
    return job


def test_slow_documents_of_one_do_not_hold_up_the_good_one_of_another_that_comes_later(
    desk: Desk, dripping: Dripping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what was withdrawn ends soon: the run ends without waiting for the downloads."""
    monkeypatch.setenv("ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    entries = [entry(number, dripping.server.url) for number in range(12)]
    with serving(listed_as(*entries)) as api:
        slow = desk.job(external_api_get_url=api.url, external_api_post_url=api.url, organization_id=SLOW)
        desk.ask(slow)
        with running(desk) as run:
            wait_for(lambda: dripping.server.requests, "the slow documents to be asked for", 60)
            good = good_one(desk)
            wait_for(lambda: desk.executions(good)[0]["status"] == "success", "the good one", 60)
            assert desk.executions(slow)[0]["status"] == "running" and run.is_alive()
            assert desk.api.delete(f"/cron-jobs/{slow}").status_code == 200
            run.join(60)
            assert not run.is_alive() and not dripping.over.is_set()
    assert len(dripping.server.requests) < 12, "withdrawn work was not begun"


def test_a_list_that_comes_slowly_does_not_hold_up_another_organization(desk: Desk, dripping: Dripping) -> None:
    slow = desk.job(external_api_get_url=dripping.server.url, organization_id=SLOW)
    desk.ask(slow)
    with running(desk) as run:
        wait_for(lambda: dripping.server.requests, "the slow list to be asked for", 60)
        good = good_one(desk)
        wait_for(lambda: desk.executions(good)[0]["status"] == "success", "the good one", 60)
        assert desk.executions(slow)[0]["status"] == "running" and run.is_alive()
        assert desk.api.delete(f"/cron-jobs/{slow}").status_code == 200
        run.join(60)
        assert not run.is_alive()
