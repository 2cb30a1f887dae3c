"""The transport of the OpenAI SDK's HTTP client, with our own limits on time, size and kind of answer.

The SDK's timeout applies to each read, so a server that drips could occupy a worker for ever; and its objects do not
have the rate-limit headers of successful answers. So its HTTP client gets a transport over our own `connections`.
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
from imgpipe_orchestration.errors import PartnerAway, PartnerUnavailable
from imgpipe_orchestration.partners.connections import answered_by, connect_by, never_sent, why
from imgpipe_orchestration.partners.http import ANSWER_LIMIT, Reply, read_bounded
from imgpipe_orchestration.partners.rate_limit import RateGate
from imgpipe_orchestration.partners.retry import Deadline

_NAME = "OpenAI"
_OF_THE_BODY_ON_THE_WIRE = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class _Calls(threading.local):
    """The call that each thread is making; the SDK has no way to pass it on to the transport."""

    current: tuple[RateGate, Deadline] | None = None


class WatchedTransport(httpx2.BaseTransport):
    """The transport. Our errors from it are the `__cause__` of the SDK's."""

    def __init__(self, base_url: str) -> None:
        self._calls = _Calls()
        self._pools = _pools_to(base_url)
        connect_by(self._pools)

    @contextmanager
    def watching(self, rate: RateGate, deadline: Deadline) -> Iterator[None]:
        """Answers to what this thread sends in the block teach `rate`, and must be complete by `deadline`."""
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
            UnreadableAnswer: too long, not JSON, or nested too deeply.
        """
        assert self._calls.current is not None  # noqa: S101 - nobody sends outside of `watching`
        rate, deadline = self._calls.current
        request.headers.update(tracing.headers())
        request.headers["Accept-Encoding"] = "gzip, deflate"  # what urllib3 can unpack without other packages
        response, content = self._answer(request, deadline)
        rate.learn(response.status, response.headers)
        # As they came, in bytes: of what is not ASCII the SDK's library takes no other form.
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.items()
            if name.lower() not in _OF_THE_BODY_ON_THE_WIRE
        ]
        answer = httpx2.Response(response.status, headers=headers, content=content)
        if answer.is_success:
            Reply(response.status, response.headers, content).json(_NAME)
            # What is JSON is called that, as servers also declare wrong types: the SDK would return it as text.
            answer.headers["content-type"] = "application/json"
        return answer

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


def _pools_to(base_url: str) -> urllib3.PoolManager:
    """Connections that obey HTTPS_PROXY and NO_PROXY, with the same trusted certificates as the SDK's own client."""
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
