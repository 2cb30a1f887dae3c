"""The external Vision Analysis API's client: pages, malformed entries, uploads."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from imgpipe_orchestration.errors import (
    Forbidden,
    PartnerRefused,
    PartnerUnavailable,
    RateLimited,
    UnreadableAnswer,
)
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration.partners.ssrf import AllowList, Guard
from imgpipe_orchestration.partners.vision_analysis import Malformed, VisionAnalysis, VisionAnalysisApi
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.partners.wire import Server, reply, serving

LOOPBACK = Guard(AllowList.parse("127.0.0.0/8"))
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
    assert len(standins.calls("vision_analysis", "list")) == 3
    (report,) = standins.admin("GET", "reports")
    assert report["filename"] == "report_1.html"


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


def test_pages_that_always_bring_something_new_are_an_error() -> None:
    def endless(handler: BaseHTTPRequestHandler, number: int) -> None:
        entry = {"vision_analysis_id": f"v{number}", "organization_id": "o"}
        reply(handler, listing(entry, total=10**9))

    with serving(endless) as server, pytest.raises(PartnerUnavailable, match="never to end"):
        list(on(server).unprocessed(page_size=1, most_pages=20))


def test_a_malformed_entry_fails_alone() -> None:
    good = {"vision_analysis_id": "good", "organization_id": "o", "documents": [{"document_path": "http://x/a.jpg"}]}
    no_link = {"vision_analysis_id": "bad", "organization_id": "o", "documents": [{"document_name": "a.jpg"}]}
    with serving(lambda h, _: reply(h, listing(no_link, good, {"organization_id": "o"}))) as server:
        bad, fine, nameless = on(server).unprocessed()
    assert bad == Malformed("bad", "documents.0.document_path: Field required")
    assert isinstance(fine, VisionAnalysis)
    assert isinstance(nameless, Malformed)


@pytest.mark.parametrize("body", [b"[]", b'{"status": "success"}', b'{"data": {}}', b"<html>", b'{"status": "error"}'])
def test_another_shape_is_unreadable(body: bytes) -> None:
    with serving(lambda h, _: reply(h, body)) as server, pytest.raises(UnreadableAnswer):
        list(on(server).unprocessed())


@pytest.mark.parametrize(
    ("kind", "error"),
    [("unauthorized", PartnerRefused), ("truncated_json", UnreadableAnswer), ("server_error", PartnerUnavailable)],
)
def test_failures_arrive_as_what_they_are(
    kind: str, error: type[Exception], api: VisionAnalysisApi, standins: StandInAccess
) -> None:
    standins.fault("vision_analysis", kind, count=None)
    with pytest.raises(error):
        list(api.unprocessed())


def test_a_long_rate_limit_is_passed_on(api: VisionAnalysisApi, standins: StandInAccess) -> None:
    standins.fault("vision_analysis", "rate_limit", retry_after=600)
    with pytest.raises(RateLimited):
        list(api.unprocessed())


def test_an_upload_answered_500_twice_arrives_once(api: VisionAnalysisApi, standins: StandInAccess) -> None:
    (analysis,) = standins.admin("POST", "vision-analyses", {"images": 0})
    standins.fault("vision_analysis", "server_error", operation="upload", count=2)
    answer = api.upload(
        vision_analysis_id=analysis["vision_analysis_id"],
        organization_id=analysis["organization_id"],
        filename="r.html",
        html="<html>grün</html>".encode(),
    )
    assert answer["status"] == "success"
    assert [report["html"] for report in standins.admin("GET", "reports")] == ["<html>grün</html>"]


def test_a_private_address_of_a_tenant_is_refused(standins: StandInAccess) -> None:
    api = VisionAnalysisApi(standins.analyses_url, standins.analyses_url, "key", guard=Guard(AllowList()))
    with pytest.raises(Forbidden):
        list(api.unprocessed())
    assert standins.calls("vision_analysis") == []
