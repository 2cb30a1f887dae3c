"""A customer's token and the signatures in links are seen by nobody."""

import logging
import re
from http.server import BaseHTTPRequestHandler

import pytest

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.telemetry import logs
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.conftest import KEY, Desk

SIGNATURE = "c3RhbmQtaW4tc2lnbmF0dXJl"


def test_neither_a_token_nor_a_signature_reaches_a_log_an_event_an_answer_or_the_database(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(handler: BaseHTTPRequestHandler, _: int) -> None:
        """A partner that shows what it was sent, in the header and in the body of its error."""
        sent = handler.headers.get("Authorization", "")
        reply(handler, f"you sent {sent}, that is {KEY}".encode(), 403, X_Echo=sent)

    caplog.set_level(logging.DEBUG)
    desk.seed(images=1, expired_sas=True, dead_link=True)
    with serving(echo) as liar:
        echoed = desk.job(external_api_get_url=liar.url)
        refused = desk.job(external_api_post_url=liar.url)
        desk.ask(echoed)
        desk.ask(refused)
        run = desk.run()
        seen = [desk.api.get(f"/cron-jobs/{job}/executions").text for job in (echoed, refused)]
    with Client(create_app(desk.settings)) as operator:
        pages = [f"/vision-reports/{job}{part}" for job in (echoed, refused) for part in ("", "/edit")]
        answers = [operator.get(page) for page in (*pages, "/vision-reports", "/failures")]
        form = {"name": "x", "schedule": "no", "external_api_key": KEY}
        token = re.search(r'name="form_token" value="([^"]+)"', answers[1].text)
        assert token is not None
        answers += [operator.post("/vision-reports/new", data={**form, "form_token": token[1]})]
    assert [answer.status_code for answer in answers] == [200] * 6 + [422]
    assert "HTTP 403" in answers[0].text
    # The form that could not be saved keeps what was typed, for who typed it.
    kept = f'value="{KEY}"'
    assert answers[-1].headers["Cache-Control"] == "no-store" and answers[-1].text.count(kept) == 1
    seen += [answer.text.replace(kept, "") if answer is answers[-1] else answer.text for answer in answers]
    assert "HTTP 403" in seen[0]
    assert "HTTP 403" in seen[1]
    seen += [str(event) for event in run.all_events]
    seen += [entry.message for entry in desk.instance.all_logs(run.run_id)]
    # Log lines as the product writes them, in both styles.
    for formatter in (logs.TextFormatter(), logs.JsonFormatter()):
        seen += [formatter.format(record) for record in caplog.records]
    seen += desk.stored()
    leaks = [line for line in seen if KEY in line or SIGNATURE in line]
    assert leaks == []
