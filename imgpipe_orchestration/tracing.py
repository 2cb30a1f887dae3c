"""One trace id that follows an image from its upload to the callback (W3C Trace Context, `traceparent`).

A request brings a trace or begins one. What it enqueues keeps it (`work_items.trace`), the run that takes an item up
goes on with it, and partners are sent it. Log lines carry its id. Where OTEL_EXPORTER_OTLP_ENDPOINT is set, spans are
exported as well (`tracing_export`); without it a span costs a random number and nothing is imported.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Literal, ParamSpec, Protocol, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")

Kind = Literal["server", "internal", "client"]
Attribute = str | int | float | bool

HEADER = "traceparent"
_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Trace:
    """A position in a trace: the ids of the trace and of the current span. `str` gives the header's value."""

    trace_id: str
    span_id: str
    sampled: bool = True
    """False when the caller's trace is not recorded; then ours is not, either."""

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def begin(*, sampled: bool = True) -> Trace:
    """A new trace."""
    return Trace(os.urandom(16).hex(), os.urandom(8).hex(), sampled)


class Span(Protocol):
    """A piece of work in a trace."""

    @property
    def trace(self) -> Trace: ...

    def name_it(self, name: str) -> None:
        """Rename it, e.g. to the route, which is known only at its end."""

    def note(self, **attributes: Attribute) -> None:
        """Add attributes; no secrets."""

    def failed(self, reason: str) -> None:
        """Mark it as failed, although nothing was raised."""


class Exporter(Protocol):
    """Exports spans."""

    def span(
        self, name: str, kind: Kind, parent: Trace | None, attributes: dict[str, Attribute]
    ) -> AbstractContextManager[Span]: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


_current: ContextVar[Trace | None] = ContextVar("trace", default=None)


class _Export:
    """This process's exporter, set by `configure`."""

    endpoint = ""
    exporter: Exporter | None = None


def configure(endpoint: str) -> None:
    """Export this process's spans to the OTLP collector at `endpoint`, or nowhere when it is empty.

    Raises:
        SettingsError: the extra `otel` is not installed.
    """
    if endpoint == _Export.endpoint:
        return
    if _Export.exporter is not None:
        _Export.exporter.close()
    _Export.endpoint, _Export.exporter = "", None
    if endpoint:
        from imgpipe_orchestration.tracing_export import OtlpExporter

        _Export.endpoint, _Export.exporter = endpoint, OtlpExporter(endpoint)


def flush() -> None:
    """Send the buffered spans; call it before the process ends."""
    if _Export.exporter is not None:
        _Export.exporter.flush()


def parse(header: str | None) -> Trace | None:
    """The trace of a `traceparent` header, or None if it is missing or invalid (w3.org/TR/trace-context, 3.2)."""
    found = _FORM.fullmatch(header.strip()) if header else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not int(trace_id, 16) or not int(span_id, 16):
        return None
    return Trace(trace_id, span_id, sampled=bool(int(flags, 16) & 1))


def current() -> Trace | None:
    """The trace of this thread or task; None outside of any."""
    return _current.get()


def current_id() -> str:
    """The trace's id, or an empty string outside of any."""
    trace = _current.get()
    return trace.trace_id if trace is not None else ""


def headers() -> dict[str, str]:
    """The trace's headers for a call to a partner."""
    trace = _current.get()
    return {} if trace is None else {HEADER: str(trace)}


@contextmanager
def resumed(trace: Trace | None) -> Iterator[None]:
    """Continue a trace within the block; with None, the first span in it begins one."""
    token = _current.set(trace)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def span(name: str, kind: Kind = "internal", /, **attributes: Attribute) -> Iterator[Span]:
    """A piece of work: a child of the current span, or the beginning of a trace.

    An exception passes through and marks the span as failed, with its type only, because its text may contain secrets.
    """
    parent = _current.get()
    if _Export.exporter is None:
        trace = begin() if parent is None else Trace(parent.trace_id, os.urandom(8).hex(), parent.sampled)
        token = _current.set(trace)
        try:
            yield _Unexported(trace)
        finally:
            _current.reset(token)
        return
    with _Export.exporter.span(name, kind, parent, attributes) as exported:
        token = _current.set(exported.trace)
        try:
            yield exported
        finally:
            _current.reset(token)


def carried(work: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """`work` for other threads, also several at once: it runs with this thread's trace and bound log fields."""
    context = copy_context()

    def carrying(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        return context.copy().run(work, *args, **kwargs)

    return carrying


@dataclass(frozen=True, slots=True)
class _Unexported:
    trace: Trace

    def name_it(self, name: str) -> None:
        """Nobody is told."""

    def note(self, **attributes: Attribute) -> None:
        """Nobody is told."""

    def failed(self, reason: str) -> None:
        """Nobody is told."""
