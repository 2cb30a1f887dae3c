"""One trace id that follows an image from its upload to the callback (W3C Trace Context, `traceparent`).

A request brings a trace or begins one. What it enqueues keeps its `traceparent` (`work_items.trace`), the run that
takes an item up goes on with it, and partners are sent it. Log lines carry its id. Where OTEL_EXPORTER_OTLP_ENDPOINT is
set, OpenTelemetry's SDK records the spans and exports them. It reads its own variables beside that one:
OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES and the rest.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.telemetry.redaction import redact

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

HEADER = "traceparent"
TIMEOUT_SECONDS = 5.0
"""How long a collector that is away may delay the end of a run."""
_W3C = TraceContextTextMapPropagator()


class _Export:
    """Where this process's spans go, set by `configure`. No provider without a collector: in a child of a process with
    threads it would wait for ever, for the SDK begins threads after a fork."""

    endpoint = ""
    provider: TracerProvider | None = None


def configure() -> None:
    """Export this process's spans to the OTLP collector at OTEL_EXPORTER_OTLP_ENDPOINT, or nowhere without one. Spans
    that the collector does not accept are logged and lost.

    Raises:
        SettingsError: the extra `otel` is not installed.
    """
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if endpoint == _Export.endpoint:
        return
    if _Export.provider is not None:
        _Export.provider.shutdown()
    _Export.endpoint, _Export.provider = "", None
    if endpoint:
        _Export.endpoint, _Export.provider = endpoint, _provider(endpoint)


def _provider(endpoint: str) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry's SDK is not installed;"
            " in the project's folder: pip install -c constraints.txt '.[otel]'"
        ) from error
    name = os.environ.get("OTEL_SERVICE_NAME") or "imgpipe"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    sender = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=TIMEOUT_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(sender))
    return provider


def flush() -> None:
    """Send the buffered spans; call it before the process ends."""
    if _Export.provider is not None:
        _Export.provider.force_flush(int(1000 * TIMEOUT_SECONDS))


def begin(*, sampled: bool = True) -> str:
    """The `traceparent` of a new trace."""
    return f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-{'01' if sampled else '00'}"


def parse(header: str | None) -> str:
    """A `traceparent` as we write it, or an empty string if it is missing or invalid."""
    return _written(_context(header or ""))


def id_of(traceparent: str) -> str:
    """The id of the trace; empty for an invalid `traceparent`."""
    return parse(traceparent)[3:35]


def current() -> str:
    """The `traceparent` of this thread or task; empty outside of any."""
    return _written(context.get_current())


def current_id() -> str:
    """The trace's id, or an empty string outside of any."""
    found = trace.get_current_span().get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else ""


def headers(of: context.Context | None = None) -> dict[str, str]:
    """The trace's headers for a call to a partner; by default the current trace's."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, of)
    return carrier


@contextmanager
def resumed(traceparent: str) -> Iterator[None]:
    """Continue a trace within the block; with an empty one, the first span in it begins one."""
    token = context.attach(_context(traceparent))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def span(name: str, kind: str = "internal", /, **attributes: str | int | float | bool) -> Iterator[Span]:
    """A piece of work: a child of the current span, or the beginning of a trace.

    An exception passes through and marks the span as failed, with its type only, because its text may contain secrets.

    Args:
        kind: server, internal or client.
    """
    with _begun(name, SpanKind[kind.upper()]) as begun:
        note(begun, **attributes)
        try:
            yield begun
        except BaseException as error:
            failed(begun, type(error).__name__)
            raise


def _begun(name: str, kind: SpanKind) -> AbstractContextManager[Span]:
    if _Export.provider is not None:
        tracer = _Export.provider.get_tracer("imgpipe")
        return tracer.start_as_current_span(name, kind=kind, record_exception=False, set_status_on_exception=False)
    parent = trace.get_current_span().get_span_context()
    flags = parent.trace_flags if parent.is_valid else TraceFlags(TraceFlags.SAMPLED)
    trace_id = parent.trace_id or random.getrandbits(128)
    place = SpanContext(trace_id, random.getrandbits(64), is_remote=False, trace_flags=flags)
    return trace.use_span(NonRecordingSpan(place), record_exception=False, set_status_on_exception=False)


def note(begun: Span, **attributes: str | int | float | bool) -> None:
    """Add attributes to a span; no secrets."""
    begun.set_attributes({f"imgpipe.{name}": value for name, value in attributes.items()})


def failed(begun: Span, reason: str) -> None:
    """Mark a span as failed, although nothing was raised."""
    begun.set_status(StatusCode.ERROR, redact(reason))


def carried(work: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """`work` for other threads, also several at once: it runs with this thread's trace and bound log fields."""
    here = copy_context()

    def carrying(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return here.copy().run(work, *args, **kwargs)

    return carrying


def _context(traceparent: str) -> context.Context:
    return _W3C.extract({HEADER: traceparent}, context.Context())


def _written(of: context.Context) -> str:
    return headers(of).get(HEADER, "")
