"""Exports spans to an OpenTelemetry collector, over OTLP. Needs the extra `otel`.

The SDK reads its own variables beside the endpoint: OTEL_EXPORTER_OTLP_HEADERS, OTEL_SERVICE_NAME,
OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES and the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from imgpipe_orchestration.errors import SettingsError
from imgpipe_orchestration.redaction import redact
from imgpipe_orchestration.tracing import Attribute, Kind, Trace

try:
    from opentelemetry import trace as api
    from opentelemetry.context import Context
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError as error:
    raise SettingsError(
        "OTEL_EXPORTER_OTLP_ENDPOINT is set, but OpenTelemetry is not installed;"
        " in the project's folder: pip install -c constraints.txt '.[otel]'",
        field="OTEL_EXPORTER_OTLP_ENDPOINT",
    ) from error

TIMEOUT_SECONDS = 5.0
"""How long a collector that is away may delay the end of a run."""

_KINDS = {"server": api.SpanKind.SERVER, "internal": api.SpanKind.INTERNAL, "client": api.SpanKind.CLIENT}


class OtlpExporter:
    """Sends spans in batches, in the background. Spans that the collector does not accept are logged and lost."""

    def __init__(self, endpoint: str) -> None:
        sender = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", timeout=TIMEOUT_SECONDS)
        name = os.environ.get("OTEL_SERVICE_NAME") or "imgpipe"
        self._provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self._provider.add_span_processor(BatchSpanProcessor(sender))
        self._tracer = self._provider.get_tracer("imgpipe")

    @contextmanager
    def span(
        self, name: str, kind: Kind, parent: Trace | None, attributes: dict[str, Attribute]
    ) -> Iterator[_Exported]:
        began = self._tracer.start_span(name, context=_context(parent), kind=_KINDS[kind])
        exported = _Exported(began)
        exported.note(**attributes)
        try:
            yield exported
        except BaseException as error:
            exported.failed(type(error).__name__)
            raise
        finally:
            began.end()

    def flush(self) -> None:
        self._provider.force_flush(int(1000 * TIMEOUT_SECONDS))

    def close(self) -> None:
        self._provider.shutdown()


@dataclass(frozen=True, slots=True)
class _Exported:
    span: api.Span

    @property
    def trace(self) -> Trace:
        context = self.span.get_span_context()
        return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled=context.trace_flags.sampled)

    def name_it(self, name: str) -> None:
        self.span.update_name(name)

    def note(self, **attributes: Attribute) -> None:
        self.span.set_attributes({f"imgpipe.{name}": value for name, value in attributes.items()})

    def failed(self, reason: str) -> None:
        self.span.set_status(api.StatusCode.ERROR, redact(reason))


def _context(parent: Trace | None) -> Context:
    """The SDK's context for our `Trace`. Always an explicit one, so that no other library's current span is used."""
    if parent is None:
        return Context()
    flags = api.TraceFlags(api.TraceFlags.SAMPLED if parent.sampled else api.TraceFlags.DEFAULT)
    place = api.SpanContext(int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags)
    return api.set_span_in_context(api.NonRecordingSpan(place), Context())
