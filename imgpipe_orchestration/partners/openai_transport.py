"""What goes over the wire to OpenAI, under our own limits and watched: rate-limit headers, the kind of body, its size.

The SDK's timeout counts from one byte to the next, so a server that drips would hold a worker for ever, and its objects
do not carry the headers of good answers. So its HTTP client gets a transport over the connections of all the partners.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import urllib3
from urllib3.exceptions import HTTPError
from urllib3.exceptions import TimeoutError as TookTooLong

from imgpipe_orchestration import tracing
from imgpipe_orchestration.errors import PartnerAway, PartnerUnavailable, UnreadableAnswer
from imgpipe_orchestration.partners.connections import answered_by, connect_by, never_sent, why
from imgpipe_orchestration.partners.http import ANSWER_LIMIT, read_bounded
from imgpipe_orchestration.partners.json_text import refuse_deep
from imgpipe_orchestration.partners.rate_limit import RateGate
from imgpipe_orchestration.partners.retry import Deadline

_NAME = "OpenAI"
_OF_THE_BODY_ON_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class _Calls(threading.local):
    """The call that each thread is making: the SDK has no way to hand it down."""

    current: tuple[RateGate, Deadline] | None = None


class WatchedTransport(httpx2.BaseTransport):
    """A transport of the SDK's HTTP client. Our own errors come out of it as the cause of the SDK's."""

    def __init__(self, base_url: str) -> None:
        self._calls = _Calls()
        self._pools = _pools_to(base_url)
        connect_by(self._pools)

    @contextmanager
    def watching(self, rate: RateGate, deadline: Deadline) -> Iterator[None]:
        """What this thread sends inside teaches `rate` and has until `deadline` to be answered in full."""
        self._calls.current = rate, deadline
        try:
            yield
        finally:
            self._calls.current = None

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """
        Raises:
            PartnerAway: no connection.
            PartnerUnavailable: too slow, cut off.
            UnreadableAnswer: too long, no JSON, or too deep.
        """
        assert self._calls.current is not None  # noqa: S101 - nobody sends outside of `watching`
        rate, deadline = self._calls.current
        request.headers.update(tracing.headers())
        request.headers["Accept-Encoding"] = "gzip, deflate"  # what urllib3 unpacks by itself
        response, content = self._answer(request, deadline)
        rate.learn(response.status, response.headers)
        if 200 <= response.status < 300:
            _refuse_unreadable(response.headers.get("content-type", ""), content)
        headers = [(n, v) for n, v in response.headers.items() if n.lower() not in _OF_THE_BODY_ON_THE_WIRE]
        return httpx2.Response(response.status, headers=headers, content=content)

    def _answer(self, request: httpx2.Request, deadline: Deadline) -> tuple[urllib3.BaseHTTPResponse, bytes]:
        try:
            with answered_by(deadline):
                response = self._pools.urlopen(
                    request.method,
                    str(request.url),
                    body=request.read(),
                    headers=urllib3.HTTPHeaderDict(request.headers.multi_items()),
                    timeout=max(0.001, deadline.remaining),
                    redirect=False,
                    retries=False,
                    preload_content=False,
                )
            try:
                return response, read_bounded(response, limit=ANSWER_LIMIT, partner=_NAME)
            finally:
                response.close()
        except HTTPError as error:
            if never_sent(error):
                raise PartnerAway(f"{_NAME} could not be reached ({why(error)})") from error
            if isinstance(error, TookTooLong):
                raise PartnerUnavailable(f"{_NAME} did not answer in time") from error
            raise PartnerUnavailable(f"{_NAME} broke off ({why(error)})") from error

    def close(self) -> None:
        self._pools.clear()


def _refuse_unreadable(content_type: str, content: bytes) -> None:
    if "json" not in content_type:
        # The SDK would take a proxy's error page for an answer in text.
        raise UnreadableAnswer(f"{_NAME} answered {content_type[:50] or 'something untyped'} instead of JSON")
    try:
        refuse_deep(content.decode(errors="replace"))
    except ValueError as error:
        raise UnreadableAnswer(f"{_NAME} answered something we cannot read: {error}") from error


def _pools_to(base_url: str) -> urllib3.PoolManager:
    """Connections under HTTPS_PROXY and NO_PROXY, trusting whom the SDK's own client trusts."""
    parts = urlsplit(base_url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    trust = httpx2.create_ssl_context()
    if proxy is None:
        return urllib3.PoolManager(maxsize=32, ssl_context=trust)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    at = urlsplit(proxy)
    login = f"{unquote(at.username)}:{unquote(at.password or '')}" if at.username else None
    return urllib3.ProxyManager(
        proxy, maxsize=32, ssl_context=trust, proxy_headers=urllib3.make_headers(proxy_basic_auth=login)
    )
