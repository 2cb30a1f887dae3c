"""Connections to outside servers: requests of httpx over httpcore, with one time limit for a whole answer.

A library's timeout applies to each read: a server that drips its headers, chunk sizes or trailers, or sends
`100 Continue` again and again, could occupy a thread as long as it likes. A DNS look-up has no timeout at all. Here no
wait goes beyond the deadline.
"""

import os
import socket
import ssl
import weakref
from contextvars import ContextVar
from functools import cache
from typing import Any

import httpcore2
import httpx2
from requests.utils import get_environ_proxies, select_proxy

from imgpipe_orchestration.errors import PartnerAway, PartnerUnavailable, SettingsError, UnreadableAnswer
from imgpipe_orchestration.partners.reply import ANSWER_LIMIT, AnswerTooLong, Reply
from imgpipe_orchestration.partners.retry import Deadline, whole
from imgpipe_orchestration.partners.ssrf import Guard, addresses_of

_CHUNK = 64 * 1024
_deadline: ContextVar[Deadline] = ContextVar("deadline")

_NEVER_SENT = (httpcore2.ConnectError, httpcore2.ConnectTimeout, httpcore2.ProxyError, httpcore2.UnsupportedProtocol)
"""Errors that mean that nothing was sent: no address or connection, a bad proxy or certificate."""


@cache
def _trusted(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Trust in the authorities that SSL_CERT_FILE and SSL_CERT_DIR name. Reading them takes 60 ms: once is enough."""
    return httpx2.create_ssl_context()


class Connections:
    """Connections that are kept between requests; thread-safe. Redirects, cookies and .netrc are ignored."""

    def __init__(self, url: str = "", guard: Guard | None = None) -> None:
        """
        Args:
            url: whose proxy in the environment is used.
            guard: restricts addresses. Then no proxy is used, which would connect without the guard's check.

        Raises:
            SettingsError: the environment names a proxy of another kind than HTTP.
        """
        options: dict[str, Any] = {
            "ssl_context": _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")),
            "network_backend": _InTime(guard),
            "max_connections": None,
            "max_keepalive_connections": 32,
        }
        proxy = None if guard else select_proxy(url, get_environ_proxies(url))
        if proxy:
            about = httpx2.Proxy(proxy if "://" in proxy else f"http://{proxy}")
            if about.url.scheme not in ("http", "https"):
                raise SettingsError(f"HTTPS_PROXY: a {about.url.scheme} proxy cannot be used")
            options |= {"proxy_url": str(about.url), "proxy_auth": about.raw_auth}
        self._pool = httpcore2.HTTPProxy(**options) if proxy else httpcore2.ConnectionPool(**options)
        weakref.finalize(self, self._pool.close)

    def ask(
        self,
        request: httpx2.Request,
        deadline: Deadline,
        *,
        partner: str,
        limit: int = ANSWER_LIMIT,
        stall: float | None = None,
        only_good: bool = False,
    ) -> Reply:
        """The whole answer, by `deadline`.

        Args:
            stall: longest silence of the server, seconds.
            only_good: leave out the body of any status but 2xx.

        Raises:
            PartnerAway: no connection.
            PartnerUnavailable: too slow, or cut off.
            AnswerTooLong: more than `limit` bytes.
            UnreadableAnswer: compressed, though we ask for plain answers.
            Forbidden: the guard refuses the address.
        """
        url = request.url
        request.headers.setdefault("User-Agent", "imgpipe")
        request.headers["Accept-Encoding"] = "identity"  # so that no answer unpacks to gigabytes
        if url.username and "Authorization" not in request.headers:
            next(httpx2.BasicAuth(url.username, url.password).auth_flow(request))
        token, begun = _deadline.set(deadline), False
        try:
            with self._pool.stream(
                request.method,
                httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.read(),
                extensions={"timeout": {"connect": stall, "read": stall, "write": stall}},
            ) as response:
                begun = True
                headers = httpx2.Headers(response.headers, encoding="latin-1")
                wanted = not only_good or 200 <= response.status < 300
                return Reply(response.status, headers, _body(response, headers, limit, partner) if wanted else b"")
        except _NEVER_SENT as error:
            raise PartnerAway(f"{partner} could not be reached ({_why(error)})") from error
        except httpcore2.TimeoutException as error:
            raise PartnerUnavailable(f"{partner} did not answer in time") from error
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            what = "'s answer broke off" if begun else " could not be reached"
            raise PartnerUnavailable(f"{partner}{what} ({_why(error)})") from error
        finally:
            _deadline.reset(token)

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()


def _body(response: httpcore2.Response, headers: httpx2.Headers, limit: int, sender: str) -> bytes:
    content = bytearray()
    if (encoding := headers.get("Content-Encoding", "").lower()) not in ("", "identity"):
        raise UnreadableAnswer(f"{sender}: the answer is compressed by {encoding[:20]!r}, which we do not ask for")
    if (whole(headers.get("Content-Length", "")) or 0) <= limit or "Transfer-Encoding" in headers:
        for part in response.iter_stream():
            content += part
            if len(content) > limit:
                break
        else:
            return bytes(content)
    raise AnswerTooLong(f"{sender}: more than the {limit:,} bytes allowed")


class _InTime(httpcore2.NetworkBackend):
    """Looks up and connects by the deadline, and where the guard permits."""

    def __init__(self, guard: Guard | None) -> None:
        self._guard = guard
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore2.NetworkStream:
        look_up = self._guard.addresses if self._guard else addresses_of
        try:
            addresses = look_up(host, port, _left(timeout, httpcore2.ConnectTimeout))
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(error) from error
        except OSError as error:
            raise httpcore2.ConnectError(error) from error
        last: Exception = httpcore2.ConnectError("there is no address")
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(address, port, _left(timeout, httpcore2.ConnectTimeout))
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
                continue
            if self._guard:
                self._guard.check_peer(stream.get_extra_info("socket"), host, port)
            return _StreamInTime(stream)
        raise last


class _StreamInTime(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for begin in range(0, len(buffer), _CHUNK):
            self._stream.write(buffer[begin : begin + _CHUNK], _left(timeout, httpcore2.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = _left(timeout, httpcore2.ConnectTimeout)
        return _StreamInTime(self._stream.start_tls(ssl_context, server_hostname, left))


def _left(longest: float | None, late: type[httpcore2.TimeoutException]) -> float:
    """Seconds that the next wait may take, at most `longest`."""
    remaining = _deadline.get().remaining
    if remaining <= 0:
        raise late("the time for the whole answer ran out")
    return remaining if longest is None else min(longest, remaining)


_WORDS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (socket.gaierror, "its name has no address"),
    (ssl.SSLCertVerificationError, "its certificate is not valid"),
    (ssl.SSLError, "the TLS handshake failed"),
    ((TimeoutError, httpcore2.TimeoutException), "no answer in time"),
    (httpcore2.ProtocolError, "its answer is not HTTP, or not complete"),
)


def _why(error: BaseException) -> str:
    """Why there was no connection or no answer, in words for people and without the URL."""
    found = type(error).__name__
    one: BaseException | None = error
    while one is not None:
        words = next((words for kind, words in _WORDS if isinstance(one, kind)), "")
        if not words and isinstance(one, OSError) and one.errno:
            words = os.strerror(one.errno).lower()
        if isinstance(one, ssl.SSLCertVerificationError):
            words += f": {one.verify_message}"
        found, one = words or found, one.__cause__ or one.__context__
    return found
