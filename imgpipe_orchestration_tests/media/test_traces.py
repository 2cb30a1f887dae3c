"""A trace that follows an image from its upload to the callback, with and without a collector."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.telemetry.logs import JsonFormatter
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.partners.wire import Server, reply, serving

OURS = "4bf92f3577b34da6a3ce929d0e0e4736"
BROKEN = OURS[::-1]
GIVEN = f"00-{OURS}-00f067aa0ba902b7-01"


@pytest.fixture
def recorder() -> Iterator[Server]:
    """A partner, a main API and a collector in one: it answers everything with nothing, and remembers it."""

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        reply(handler, b"" if handler.path == "/v1/traces" else b"{}")

    with serving(answer) as server:
        yield server


def sent_to(recorder: Server, path: str) -> list[str]:
    """The traces that calls to a path carried."""
    return [headers["traceparent"] for asked, headers, _ in recorder.requests if asked.startswith(path)]


def spans(recorder: Server, trace: str) -> dict[str, Span]:
    """What came as OTLP of one trace, by name."""
    came = [ExportTraceServiceRequest.FromString(body) for path, _, body in recorder.requests if path == "/v1/traces"]
    scopes = [scope for request in came for one in request.resource_spans for scope in one.scope_spans]
    return {span.name: span for scope in scopes for span in scope.spans if span.trace_id.hex() == trace}


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    """What this process logs meanwhile, as JSON lines."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonFormatter())
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def test_a_request_without_a_trace_begins_one(gateway: Gateway) -> None:
    first, second = (tracing.id_of(gateway.get("/health").headers["traceparent"]) for _ in range(2))
    assert first and second and first != second
    refused = gateway.get("/users/me", traceparent=GIVEN)
    assert refused.status_code == 401
    assert refused.headers["traceparent"].split("-")[1] == OURS
    assert refused.headers["traceparent"] != GIVEN


def test_the_trace_of_an_upload_reaches_providers_the_callback_and_the_log(
    make_gateway: Callable[..., Gateway],
    recorder: Server,
    log_lines: io.StringIO,
) -> None:
    gateway = make_gateway(
        main_api_url=recorder.url, google_vision_api_key="k", google_vision_endpoint=f"{recorder.url}/google-vision"
    )
    gateway.session.headers["traceparent"] = GIVEN
    gateway.finish(1, profile_image=picture())
    (callback,) = sent_to(recorder, "/api/media/complete/1")
    assert callback.split("-")[1] == OURS
    assert callback != GIVEN
    assert {trace.split("-")[1] for trace in sent_to(recorder, "/google-vision")} == {OURS}
    lines = map(json.loads, log_lines.getvalue().splitlines())
    (failed,) = [line for line in lines if line["message"] == "provider failed"]
    assert (failed["trace"], failed["run"], failed["tenant"], failed["item"]) == (OURS, "run-1", "1", 1)
    assert gateway.get("/api/media/analysis/1", **gateway.as_worker).json()["trace_id"] == OURS
    assert OURS in gateway.get("/media/1").text
    assert gateway.rows("select * from upload_traces") == []


def test_spans_of_the_whole_way_reach_a_collector(
    make_gateway: Callable[..., Gateway],
    standins: StandInAccess,
    recorder: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", recorder.url)
    gateway = make_gateway(
        openai_api_key="test-key",
        openai_base_url=standins.openai_url,
        moderation="off",
    )
    try:
        gateway.session.headers["traceparent"] = GIVEN
        gateway.finish(1, profile_image=picture())
        gateway.session.headers["traceparent"] = GIVEN.replace(OURS, BROKEN)
        gateway.upload(1, profile_image=picture()[:2000])
        gateway.run_due("run-2")
        tracing.flush()
    finally:
        monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
        tracing.configure()
    told = spans(recorder, OURS)
    wanted = {
        "PATCH /users/me",
        "retrieve_file",
        "ai_visual_analysis",
        "openai vision",
        "resize_optimize",
        "update_callback",
        "POST The main API",
        "POST /api/media/complete/{image_id}",
        "media_urls",
    }
    assert wanted <= set(told)
    upload, stage = told["PATCH /users/me"], told["update_callback"]
    assert upload.parent_span_id.hex() == "00f067aa0ba902b7"
    call, taken = told["POST The main API"], told["POST /api/media/complete/{image_id}"]
    assert (call.parent_span_id, taken.parent_span_id) == (stage.span_id, call.span_id)
    assert told["openai vision"].parent_span_id == told["ai_visual_analysis"].span_id
    assert (upload.kind, call.kind) == (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT)
    attributes = {one.key: one.value for one in told["openai vision"].attributes}
    assert attributes["imgpipe.input_tokens"].int_value > 0
    assert told["resize_optimize"].end_time_unix_nano > told["resize_optimize"].start_time_unix_nano
    failed = [span for span in spans(recorder, BROKEN).values() if span.status.code == Status.STATUS_CODE_ERROR]
    assert [(span.name, span.status.message) for span in failed] == [("ai_visual_analysis", "BadImage")]
