"""What goes over the wire to OpenAI, watched: rate-limit headers, the kind of body, its size and the time it takes.

The SDK's timeout counts from one chunk to the next, so a server that drips would hold a worker for ever, and its
objects do not carry the headers of good answers. A transport of our own under its HTTP client sees both.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import UnreadableAnswer
from imgpipe_orchestration.partners.http import ANSWER_LIMIT
from imgpipe_orchestration.partners.rate_limit import RateGate
from imgpipe_orchestration.partners.retry import Deadline


class _Calls(threading.local):
    """The call that each thread is making: the SDK has no way to hand it down."""

    current: tuple[RateGate, Deadline] | None = None


class WatchedTransport(httpx2.BaseTransport):
    """httpx2's own transport, with every answer looked at on its way up."""

    def __init__(self, base_url: str) -> None:
        self._calls = _Calls()
        limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20)
        self._inner = httpx2.HTTPTransport(limits=limits, proxy=_proxy_for(base_url))

    @contextmanager
    def watching(self, rate: RateGate, deadline: Deadline) -> Iterator[None]:
        """What this thread sends inside teaches `rate` and has until `deadline` to be answered in full."""
        self._calls.current = rate, deadline
        try:
            yield
        finally:
            self._calls.current = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers.update(tracing.headers())
        response = self._inner.handle_request(request)
        if self._calls.current is None:
            return response
        rate, deadline = self._calls.current
        rate.learn(response.status_code, response.headers)
        content_type = response.headers.get("content-type", "")
        if 200 <= response.status_code < 300 and "json" not in content_type:
            response.close()
            # The SDK would take a proxy's error page for an answer in text.
            raise UnreadableAnswer(f"OpenAI answered {content_type[:50] or 'something untyped'} instead of JSON")
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=_Bounded(response, deadline),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._inner.close()


def _proxy_for(base_url: str) -> str | None:
    """HTTPS_PROXY and NO_PROXY, which httpx2 heeds only without a transport of one's own."""
    parts = urlsplit(base_url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


class _Bounded(httpx2.SyncByteStream):
    """A body that ends in an error when it gets too long in bytes or in time."""

    def __init__(self, response: httpx2.Response, deadline: Deadline) -> None:
        self._response = response
        self._deadline = deadline

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for chunk in self._response.iter_raw():
            size += len(chunk)
            if size > ANSWER_LIMIT:
                raise UnreadableAnswer(f"OpenAI answered more than {ANSWER_LIMIT:,} bytes")
            if self._deadline.passed:
                raise httpx2.ReadTimeout("the answer took too long to arrive")
            yield chunk

    def close(self) -> None:
        self._response.close()
