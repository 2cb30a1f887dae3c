"""Middleware: the audit's entries, HEAD, CORS, and what every answer gets."""

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imgpipe_orchestration.identity.audit import Entry, begun
from imgpipe_orchestration.telemetry import tracing
from imgpipe_orchestration.web.access import takes_token
from imgpipe_orchestration.web.headers import secured
from imgpipe_orchestration.web.request_counts import RequestCounts

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_PUBLIC = ("/serve/", "/picture/", "/api/images/", "/components/", "/storage/v1/object/public/")
"""Where the paths begin of what every site may show."""
_TRACE = tracing.HEADER.encode()


class Audited:
    """Puts an audit `Entry` into the scope of each request that may change something, and makes the request's
    transactions write it; the routes say who asks and what is done."""

    def __init__(self, app: ASGIApp, engine: Callable[[], Engine]) -> None:
        self.app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in _READS:
            await self.app(scope, receive, send)
            return
        client = scope.get("client")
        with begun(Entry(self._engine(), address=client[0] if client else "")) as entry:
            scope["imgpipe.audit"] = entry
            await self.app(scope, receive, send)


class Heads:
    """Answers HEAD as GET would be, without the body (RFC 9110, section 9.3.2). FastAPI's routes know GET only."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def only_the_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        # A copy, because the server reads the method in its own scope.
        asked = {**scope, "method": "GET"}
        try:
            await self.app(asked, receive, only_the_head)
        finally:
            if "route" in asked:  # `metrics` counts requests by route
                scope["route"] = asked["route"]


class Cors:
    """Lets pages of every origin read what everybody may, errors too, and pages of FRONTEND_ORIGINS call the users'
    routes.

    Users' tokens travel in `Authorization` and never in a cookie, so cookies are not allowed (no
    `Access-Control-Allow-Credentials`).
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = origins
        self._of_users = CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["DELETE", "GET", "PATCH", "POST", "PUT"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "traceparent"],
            expose_headers=["Retry-After", "traceparent"],
            max_age=86400,
        )
        self._preflights = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization", "Cache-Control", "If-None-Match", "If-Range", "Range"],
            max_age=86400,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        method = scope.get("method", "")
        if method == "OPTIONS":
            method = Headers(scope=scope).get("Access-Control-Request-Method", "")
        if self._origins and takes_token(method, path):
            await self._of_users(scope, receive, send)
        elif not path.startswith(_PUBLIC):
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await self._preflights(scope, receive, send)
        else:

            async def opening(message: Message) -> None:
                # Not by Starlette's middleware: it only does so for requests with an Origin, and adds `Vary: Origin`,
                # so caches would keep a copy of an image for each page that shows it.
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).setdefault("Access-Control-Allow-Origin", "*")
                await send(message)

            await self._app(scope, receive, opening)


class Answers:
    """Gives every answer the security headers and the request's trace as `traceparent`, and counts it; but not those to
    unhandled errors, which Starlette answers before all middleware.

    The trace is the one that the request names in its own `traceparent`, or begins here. Only requests that change
    something, or that a caller already traces, are exported as spans: reads are too many.
    """

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self.app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500  # the status of an unhandled error
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == _TRACE), "")
        parent = tracing.parse(given)
        if not parent and scope["method"] in _READS:
            parent = tracing.begin(sampled=False)
        with tracing.resumed(parent), tracing.span(scope["method"], "server") as span:
            ours = tracing.current().encode()

            async def completing(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*secured(message.get("headers", []), scope["scheme"]), (_TRACE, ours)]
                    tracing.note(span, status=status)
                    if status >= 500:
                        tracing.failed(span, f"HTTP {status}")
                await send(message)

            try:
                await self.app(scope, receive, completing)
            finally:
                self._counts.note(scope, status, time.perf_counter() - began)
                span.update_name(f"{scope['method']} {getattr(scope.get('route'), 'path', 'other')}")
