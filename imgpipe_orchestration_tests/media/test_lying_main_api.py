"""A main API that refuses, lies or forgets: no acknowledgement, no lost image."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest

from imgpipe_orchestration.media import pending, store
from imgpipe_orchestration.media.reports import complete
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.test_pipeline import make_due


class _MainApi(BaseHTTPRequestHandler):
    """Answers what it was told to, and writes down what it was asked."""

    answer: ClassVar[tuple[int, object]] = (200, {})
    file: ClassVar[tuple[int, str, bytes]] = (404, "text/html", b"")
    """Status, type and bytes of every temp file."""
    asked: ClassVar[list[str]] = []
    reports: ClassVar[list[tuple[str, bytes]]] = []
    """Idempotency-Key and body of every report."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(f"{self.command} {self.path}")
        if self.command == "POST":
            self.reports.append((self.headers["Idempotency-Key"], body))
        status, said = self.answer
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_POST = do_DELETE = _answer

    def do_GET(self) -> None:
        self.asked.append(f"GET {self.path}")
        status, kind, data = self.file
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status == 302:
            self.send_header("Location", "/login")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def main_api() -> Iterator[str]:
    _MainApi.asked.clear()
    _MainApi.reports.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _MainApi)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join(5)
    server.server_close()


def callback_of(gateway: Gateway) -> tuple[str, str, str]:
    (row,) = gateway.rows("""
        select c.update_callback, f.status, w.state from processing_checklist c
        join media_files f on f.id = c.media_id join work_items w on w.queue = 'media' and w.item_id = f.id
    """)
    return row[0], row[1], row[2]


@pytest.mark.parametrize("body", [[1, 2, 3], {}, {"success": False, "error": "the database is away"}, None, "ok"])
def test_an_answer_that_does_not_say_success_is_no_acknowledgement(
    make_gateway: Callable[..., Gateway], main_api: str, body: object
) -> None:
    gateway = make_gateway(main_api_url=main_api)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (200, body)
    gateway.run_due()
    assert callback_of(gateway) == ("pending", "processing", "waiting")


@pytest.mark.parametrize("status", [302, 401, 403])
def test_a_refused_key_or_a_redirect_is_tried_again_and_the_image_kept(
    make_gateway: Callable[..., Gateway], main_api: str, status: int
) -> None:
    gateway = make_gateway(main_api_url=main_api)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (status, {"detail": "no"})
    gateway.run_due()
    assert callback_of(gateway) == ("pending", "processing", "waiting")
    assert {line.split()[0] for line in _MainApi.asked} == {"POST"}


def test_reports_share_an_idempotency_key_while_they_say_the_same(
    make_gateway: Callable[..., Gateway], main_api: str, standins: StandInAccess
) -> None:
    gateway = make_gateway(
        main_api_url=main_api,
        openai_api_key="test-key",
        openai_base_url=standins.openai_url,
        google_vision_api_key="test-key",
        google_vision_endpoint=standins.google_url,
    )
    standins.fault("google", "unauthorized", count=None)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (200, {})
    gateway.run_due()
    make_due(gateway, "media")
    _MainApi.answer = (200, {"success": True})
    gateway.run_due("run-2")
    standins.admin("DELETE", "faults")
    make_due(gateway, "media_healing")
    gateway.run_due("run-3")
    first, again, healed = _MainApi.reports
    assert first == again
    assert (healed[0] != first[0], healed[1] != first[1]) == (True, True)


def test_a_report_names_the_image_at_the_media_backend(make_gateway: Callable[..., Gateway], main_api: str) -> None:
    gateway = make_gateway(main_api_url=main_api, media_backend_url="http://media-vm.example:3001/")
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (200, {"success": True})
    gateway.run_due()
    ((_, report),) = _MainApi.reports
    assert json.loads(report)["permanent_url"] == "http://media-vm.example:3001/serve/1"


def test_a_main_api_that_acknowledges_and_forgets_is_waited_for(
    make_gateway: Callable[..., Gateway], main_api: str
) -> None:
    gateway = make_gateway(main_api_url=main_api)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (200, {"success": True})
    gateway.run_due()
    assert callback_of(gateway) == ("completed", "completed", "done")
    (row,) = gateway.rows("select state, error from work_items where queue = 'media_urls'")
    assert row.state == "waiting"
    assert "has not stored it yet" in row.error
    complete(gateway.services, 1, {"media_id": "1"})  # at last
    make_due(gateway, "media_urls")
    gateway.run_due("run-2")
    assert gateway.rows("select status from pending_images") == [("complete",)]


_WAITS = [
    (401, "application/json", b"{}"),
    (403, "text/html", b"<html>forbidden</html>"),
    (302, "text/html", b""),
    (200, "text/html; charset=utf-8", b"<!DOCTYPE html><title>Back in five minutes</title>"),
    (200, "application/problem+json", b'{"title": "the database is away"}'),
    (200, "image/jpeg", b""),
]


@pytest.mark.parametrize(("status", "kind", "data"), _WAITS)
def test_an_upload_that_the_main_api_does_not_give_now_waits_and_is_not_cleaned_up(
    make_gateway: Callable[..., Gateway], main_api: str, status: int, kind: str, data: bytes
) -> None:
    gateway = make_gateway(main_api_url=main_api)
    with gateway.services.engine.begin() as connection:
        path = "/temp_images/profiles/1-profile-1-x.jpg"
        pending.add(connection, user_id=1, image_path=path, original_name="x.jpg", mime_type="image/jpeg")
    _MainApi.file = (status, kind, data)
    _MainApi.answer = (200, {"success": True})
    gateway.run_due()
    assert callback_of(gateway) == ("pending", "downloading", "waiting")
    assert {line.split()[0] for line in _MainApi.asked} == {"GET"}
    assert not list(gateway.services.media_bucket.list("bulk/")), "what was no image is not kept as the original"
    _MainApi.file = (200, "text/plain", picture())  # of a wrong type, as some servers have it
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert callback_of(gateway) == ("completed", "completed", "done")


def test_a_report_whose_acknowledgement_was_lost_is_no_conflict(
    make_gateway: Callable[..., Gateway], main_api: str
) -> None:
    gateway = make_gateway(main_api_url=main_api)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (500, {})
    gateway.run_due()
    complete(gateway.services, 1, {"media_id": "1"})  # what it did before it answered
    _MainApi.answer = (409, {"detail": "processed already"})
    make_due(gateway, "media")
    gateway.run_due("run-2")
    assert callback_of(gateway) == ("completed", "completed", "done")
    assert gateway.rows("select status from pending_images") == [("complete",)]


@pytest.mark.parametrize("status", [404, 409])
def test_an_image_that_the_main_api_no_longer_wants_is_given_up_without_another_word(
    make_gateway: Callable[..., Gateway], main_api: str, status: int
) -> None:
    gateway = make_gateway(main_api_url=main_api)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (status, {})
    gateway.run_due()
    assert callback_of(gateway) == ("failed", "failed", "failed")
    assert _MainApi.asked == ["POST /api/media/complete/1"]


def test_an_image_that_was_requeued_before_the_main_api_heard_of_its_failure_is_not_cleaned_up(
    make_gateway: Callable[..., Gateway], main_api: str
) -> None:
    gateway = make_gateway(main_api_url=main_api, partner_timeout_seconds=2)
    path = gateway.upload(1, profile_image=picture()).json()["profile_image_path"]
    bucket = gateway.services.media_bucket
    bucket.put(path.lstrip("/"), b"no image", content_type="image/jpeg", cache_control="no-store")
    _MainApi.answer = (503, {})
    gateway.run_due()
    assert gateway.rows("select state from work_items where queue = 'media_cleanups'") == [("waiting",)]
    (original,) = [one.key for one in bucket.list("bulk/")]
    bucket.put(original, picture(), content_type="image/jpeg", cache_control="private")
    assert gateway.services.claims.requeue(store.MEDIA) == [1]
    _MainApi.asked.clear()
    _MainApi.reports.clear()
    _MainApi.answer = (200, {"success": True})
    make_due(gateway, "media_cleanups")
    gateway.run_due("run-2")
    assert _MainApi.asked == ["POST /api/media/complete/1"]
    assert gateway.rows("select state from work_items where queue = 'media_cleanups'") == [("done",)]


@pytest.mark.parametrize("status", [404, 409])
def test_an_analysis_is_healed_though_the_main_api_wants_no_second_report(
    make_gateway: Callable[..., Gateway], main_api: str, standins: StandInAccess, status: int
) -> None:
    key = f"healed-{status}"
    gateway = make_gateway(main_api_url=main_api, openai_api_key=key, openai_base_url=standins.openai_url)
    standins.fault("openai", "wrong_shape", count=None)
    gateway.upload(1, profile_image=picture())
    _MainApi.answer = (200, {"success": True})
    gateway.run_due()
    standins.admin("DELETE", "faults")
    _MainApi.answer = (status, {})
    make_due(gateway, "media_healing")
    gateway.run_due("run-2")
    assert gateway.rows("select ai_visual_analysis from processing_checklist") == [("completed",)]
    assert gateway.rows("select state from work_items where queue = 'media_healing'") == [("done",)]
