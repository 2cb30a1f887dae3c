"""The external Vision Analysis API's client: pages, malformed entries, uploads."""

import json
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from imgpipe_orchestration.errors import (
    PartnerRefused,
    PartnerUnavailable,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.partners.vision_analysis import Malformed, UncertainUpload, VisionAnalysis, VisionAnalysisApi
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.partners.wire import Server, reply, serving

LOOPBACK = Guard.parse("127.0.0.0/8")
QUICK = RetryPolicy(attempts=3, first_wait=0.01, longest_wait=0.02, budget=10)


@pytest.fixture
def api(standins: StandInAccess) -> VisionAnalysisApi:
    url = standins.analyses_url
    return VisionAnalysisApi(url, f"{url}/upload", "key", guard=LOOPBACK, timeout=5, policy=QUICK)


def on(server: Server) -> VisionAnalysisApi:
    return VisionAnalysisApi(server.url, server.url, "key", guard=LOOPBACK, policy=QUICK)


def listing(*entries: Any, total: int | None = None) -> bytes:
    data = {"page": 1, "total": len(entries) if total is None else total, "vision_analysis": list(entries)}
    return json.dumps({"code": 200, "status": "success", "data": data}).encode()


def entry(analysis: Any, **other: Any) -> dict[str, Any]:
    return {"vision_analysis_id": analysis, "organization_id": "o", **other}


def sent(api: VisionAnalysisApi) -> None:
    api.upload(vision_analysis_id="v", organization_id="o", filename="r.html", html=b"<html></html>")


def test_all_pages_are_read_and_processed_ones_are_not_listed(api: VisionAnalysisApi, standins: StandInAccess) -> None:
    seeded = standins.admin("POST", "vision-analyses", [{"images": 1}] * 7)
    done = seeded[0]
    api.upload(
        vision_analysis_id=done["vision_analysis_id"],
        organization_id=done["organization_id"],
        filename="report_1.html",
        html=b"<html></html>",
    )
    found = [analysis for analysis in api.unprocessed(page_size=2) if isinstance(analysis, VisionAnalysis)]
    assert [a.vision_analysis_id for a in found] == [a["vision_analysis_id"] for a in seeded[1:]]
    assert found[0].documents[0].document_type == "image"
    assert len(standins.calls("vision_analysis", "list")) == 4
    (report,) = standins.admin("GET", "reports")
    assert (report["filename"], report["html"]) == ("report_1.html", "<html></html>")


def test_what_the_contract_says_is_sent() -> None:
    with serving(lambda h, _: reply(h, listing())) as server:
        list(on(server).unprocessed(page_size=9))
        path, headers, _ = server.requests[0]
    query = parse_qs(urlsplit(path).query)
    assert query == {"is_processed": ["false"], "page": ["1"], "page_size": ["9"]}
    assert headers["authorization"] == "Bearer key"


def test_pages_that_repeat_themselves_end(api: VisionAnalysisApi, standins: StandInAccess) -> None:
    standins.admin("POST", "vision-analyses", [{"images": 0}] * 2)
    standins.fault("vision_analysis", "endless_pages", count=None)
    assert len(list(api.unprocessed(page_size=2))) == 2
    assert len(standins.calls("vision_analysis")) == 2


def test_pages_that_always_bring_something_new_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgpipe_orchestration.partners.vision_analysis._MOST_PAGES", 20)

    def endless(handler: BaseHTTPRequestHandler, number: int) -> None:
        entry = {"vision_analysis_id": f"v{number}", "organization_id": "o"}
        reply(handler, listing(entry, total=10**9))

    with serving(endless) as server, pytest.raises(PartnerUnavailable, match="never to end"):
        list(on(server).unprocessed(page_size=1))


@pytest.mark.parametrize(
    ("status", "total", "ends"), [(404, 9, True), (400, 2, True), (422, "2", True), (400, 3, False), (401, 2, False)]
)
def test_a_refused_page_is_past_the_last_one_only_when_all_are_listed(status: int, total: Any, ends: bool) -> None:
    def pages(handler: BaseHTTPRequestHandler, _: int) -> None:
        first = "&page=1&" in handler.path
        reply(handler, listing(entry("a"), entry("b"), total=total), 200 if first else status)

    with serving(pages) as server, nullcontext() if ends else pytest.raises(PartnerRefused):
        assert [one.vision_analysis_id for one in on(server).unprocessed()] == ["a", "b"]


def test_a_document_that_cannot_be_read_is_one_without_an_address() -> None:
    documents = [{"document_name": "a.jpg"}, 5, {"document_name": "b.jpg", "document_path": ["x"]}]
    with serving(lambda h, _: reply(h, listing(entry("a", documents=documents)))) as server:
        (analysis,) = on(server).unprocessed()
    assert isinstance(analysis, VisionAnalysis)
    assert [(d.document_name, d.document_path) for d in analysis.documents] == [("a.jpg", ""), ("", ""), ("b.jpg", "")]


@pytest.mark.parametrize("unusable", ["", "  ", "a\0b", "\ud800", "x" * 501, {"id": 1}])
def test_a_malformed_entry_fails_alone(unusable: Any) -> None:
    done = entry(unusable, is_processed=True)
    with serving(lambda h, _: reply(h, listing(entry(unusable), entry("good"), "?", done, {}))) as server:
        bad, fine, no_object, empty = on(server).unprocessed()
    assert isinstance(bad, Malformed)
    assert bad.organization_id == "o"
    assert bad.reason.startswith("vision_analysis_id: ")
    assert isinstance(fine, VisionAnalysis)
    assert isinstance(no_object, Malformed)
    assert isinstance(empty, Malformed)


def test_an_api_that_ignores_the_filter_is_filtered_here() -> None:
    entries = [entry("done", is_processed=True), entry("open")]
    with serving(lambda h, _: reply(h, listing(*entries))) as server:
        assert [a.vision_analysis_id for a in on(server).unprocessed()] == ["open"]
        assert on(server).is_unprocessed("OPEN")
        assert not on(server).is_unprocessed("done")


ERRORS = [
    b'{"status": "error"}',
    b'{"code": 500, "status": "error", "message": "out of paper"}',
    b'{"code": "401", "status": "Failed", "data": null}',
    b'{"status": "fail", "data": {"organization_id": "unknown"}}',
    b'{"status": "Failed", "message": "out of paper"}',
    b'{"success": false, "error": "disk full"}',
]


@pytest.mark.parametrize("body", ERRORS)
def test_an_error_instead_of_a_listing_is_told_as_they_tell_it_but_for_the_token(body: bytes) -> None:
    said = body.replace(b"}", b', "your token": "key"}')
    with (
        serving(lambda h, _: reply(h, said)) as server,
        pytest.raises(UnreadableAnswer, match="answered with an error") as raised,
    ):
        list(on(server).unprocessed())
    assert raised.value.detail == said.decode().replace('"key"', '"***"')


def test_a_report_has_one_idempotency_key_whoever_delivers_it() -> None:
    with serving(lambda h, _: reply(h, b"{}")) as server:
        for filename, html in (("report_1.html", b"<p>"), ("report_1.html", b"<p>"), ("report_2.html", b"<p>")):
            on(server).upload(vision_analysis_id="v\n", organization_id="o", filename=filename, html=html)
        first, again, other = (headers["idempotency-key"] for _, headers, _ in server.requests)
    assert first == again != other


@pytest.mark.parametrize("status", [None, 200, 500, 503])
def test_an_upload_answered_by_a_web_page_5xx_or_not_at_all_may_have_arrived_and_is_not_repeated(
    status: int | None,
) -> None:
    def deaf(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.close_connection = True
        if status:
            reply(handler, b"<!DOCTYPE html><title>Log in</title>", status)

    with serving(deaf) as server:
        with pytest.raises(UncertainUpload):
            sent(on(server))
        assert len(server.paths) == 1


def test_the_wait_that_a_5xx_asks_for_is_passed_on() -> None:
    with serving(lambda h, _: reply(h, b"", 503, Retry_After="600")) as server:
        with pytest.raises(UncertainUpload) as raised:
            sent(on(server))
        assert raised.value.retry_after == 600
        assert len(server.paths) == 1
