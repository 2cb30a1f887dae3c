"""Failed runs are told to a webhook, without secrets, and again when it was away for a moment."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from imgpipe_orchestration import alerts
from imgpipe_orchestration.errors import PartnerRefused, PartnerUnavailable
from imgpipe_orchestration.resources import build_backends
from imgpipe_orchestration.sensors import alert_on_failed_runs

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning")


class Webhook(ThreadingHTTPServer):
    """Answers with the statuses it is told, then with 200; keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.messages: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/services/T/B/secret"


class Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.messages.append(json.loads(body))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@dg.op
def breaks() -> None:
    raise ValueError("no luck with <this> & postgresql://u:hidden-word@h/d")


@dg.job
def broken() -> None:
    breaks()


def test_a_failed_run_is_told_with_its_reason_and_a_link(
    webhook: Webhook, monkeypatch: pytest.MonkeyPatch, postgres_url: str
) -> None:
    monkeypatch.setenv("ALERT_WEBHOOK_URL", webhook.url)
    monkeypatch.setenv("DAGSTER_URL", "https://dagster.example")
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    backends = build_backends()
    with dg.DagsterInstance.ephemeral() as instance:
        result = broken.execute_in_process(instance=instance, raise_on_error=False, tags={"dagster/partition": "today"})
        event = next(e for e in result.all_events if e.is_run_failure)
        run, resources = result.dagster_run, {"backends": backends}
        with dg.build_run_status_sensor_context("failed", event, instance, run, resources=resources) as context:
            alert_on_failed_runs(context.for_run_failure())
    backends.services.close()
    (message,) = webhook.messages
    assert "*broken* failed on today" in message["text"]
    assert "no luck with &lt;this&gt; &amp; postgresql://u:***@h/d" in message["text"]
    assert f"<https://dagster.example/runs/{result.run_id}|run {result.run_id[:8]}>" in message["text"]


def test_a_webhook_that_was_away_for_a_moment_is_asked_again(webhook: Webhook) -> None:
    webhook.statuses = [503, 429]
    alerts.send(webhook.url, {"text": "x"})
    assert webhook.messages == [{"text": "x"}]


def test_a_webhook_that_refuses_or_is_gone_is_an_error_without_its_url(webhook: Webhook) -> None:
    webhook.statuses = [404]
    with pytest.raises(PartnerRefused, match="answered 404") as refused:
        alerts.send(webhook.url, {"text": "x"})
    with pytest.raises(PartnerUnavailable, match="does not answer") as away:
        alerts.send("http://127.0.0.1:1/services/T/B/secret", {"text": "x"})
    assert "secret" not in f"{refused.value}{away.value}"
