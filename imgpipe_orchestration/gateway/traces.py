"""Tracing of requests: `traceparent` is taken from the request or begun, and sent with the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgpipe_orchestration.telemetry import tracing

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NAME = tracing.HEADER.encode()
_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Traces:
    """Every request has a trace, which the answer names as `traceparent`.

    Only requests that change something, or that a caller already traces, are exported as spans: reads are too many.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == _NAME]
        parent = tracing.parse(given[0].decode("latin-1")) if given else ""
        if not parent and scope["method"] in _READS:
            parent = tracing.begin(sampled=False)
        with tracing.resumed(parent), tracing.span(scope["method"], "server") as span:
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: tracing.Span) -> None:
        ours = tracing.current().encode()

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (_NAME, ours)]
                tracing.note(span, status=message["status"])
                if message["status"] >= 500:
                    tracing.failed(span, f"HTTP {message['status']}")
            await send(message)

        try:
            await self.app(scope, receive, telling)
        finally:
            span.update_name(f"{scope['method']} {getattr(scope.get('route'), 'path', 'other')}")
