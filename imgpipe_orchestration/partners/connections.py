"""urllib3's connections with one time limit for a whole answer, including the DNS look-up.

A socket's timeout applies to each read: a server that drips its headers, chunk sizes or trailers, or sends
`100 Continue` again and again, could occupy a thread as long as it likes. A DNS look-up has no timeout at all. Here no
wait goes beyond the deadline.
"""

from __future__ import annotations

import http.client
import io
import os
import queue
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, ProxyError, SSLError
from urllib3.util.connection import create_connection

from imgpipe_orchestration.partners.retry import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def answered_by(deadline: Deadline) -> Iterator[None]:
    """Requests made in the block must be answered in full by `deadline`, also if a body is read after the block."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def never_sent(error: object) -> bool:
    """Whether urllib3's error means that nothing was sent: no address or connection, a bad proxy or certificate."""
    return isinstance(error, ConnectTimeoutError | ProxyError | SSLError)


def why(error: BaseException) -> str:
    """Why there was no connection or no answer, without the URL: messages of requests and urllib3 contain it with the
    keys in its query."""
    known = [words for one in _causes(error) if (words := _words(one))]
    return known[-1] if known else type(error).__name__


def _causes(error: BaseException) -> list[BaseException]:
    """The error and its causes, the innermost last."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop(0)
        if one not in found:
            found.append(one)
            inner = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
            waiting += [e for e in inner if isinstance(e, BaseException)]
    return found


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "its name has no address"),
    (ssl.SSLCertVerificationError, "its certificate is not valid"),
    (ssl.SSLError, "no agreement on TLS"),
    (TimeoutError, "no answer in time"),
    (http.client.RemoteDisconnected, "it hung up without an answer"),
    (http.client.IncompleteRead, "its answer is incomplete"),
    (http.client.HTTPException, "its answer is not HTTP"),
)


def _words(error: BaseException) -> str:
    found = next((words for kind, words in _WORDS if isinstance(error, kind)), "")
    if isinstance(error, ssl.SSLCertVerificationError):
        found += f": {error.verify_message}"
    if not found and isinstance(error, OSError) and error.errno:
        found = os.strerror(error.errno).lower()
    return found


def time_left(longest: float | None, deadline: Deadline | None = None) -> float | None:
    """Seconds that the next wait on a socket may take, at most `longest`.

    Raises:
        TimeoutError: the deadline has passed.
    """
    deadline = deadline or _deadline.get()
    if deadline is None:
        return longest
    remaining = deadline.remaining
    if remaining <= 0:
        raise TimeoutError("the time for the whole answer is over")
    return remaining if longest is None else min(longest, remaining)


def addresses_of(host: str, port: int, longest: float | None) -> list[str]:
    """The addresses of a host, in the resolver's order, within the deadline and `longest` seconds.

    A look-up cannot be cancelled, so a thread waits until the system's resolver ends it.

    Raises:
        TimeoutError: the resolver took too long.
        socket.gaierror: there is no such name, or the resolver failed.
    """
    answer: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answer.put(error)
        else:
            answer.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))

    threading.Thread(target=ask, name="resolver", daemon=True).start()
    try:
        found = answer.get(timeout=time_left(longest))
    except queue.Empty:
        raise TimeoutError(f"no address of {host} came in time") from None
    if isinstance(found, UnicodeError):
        raise socket.gaierror(f"{host} is no host name") from found
    if isinstance(found, OSError):
        raise found
    return found


def first_that_answers(connection: HTTPConnection, addresses: Sequence[str]) -> socket.socket:
    """A socket connected to one of the addresses, tried in their order.

    Raises:
        OSError: none answers; the error of the last one.
    """
    last = OSError("there is no address")
    for address in addresses:
        try:
            return create_connection(
                (address, connection.port), time_left(connection.timeout), socket_options=connection.socket_options
            )
        except OSError as error:
            last = error
    raise last


class _InTime(io.RawIOBase):
    """A socket's file whose reads fail at the deadline."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: Deadline) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline
        self._stall = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        self._sock.settimeout(time_left(self._stall, self._deadline))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


_INTERIM = range(102, 200)
"""Interim statuses before the answer (RFC 9110, 15.2), such as 103 Early Hints. http.client itself skips only 100."""


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        deadline = _deadline.get()
        if deadline is not None:
            self.fp = io.BufferedReader(_InTime(self.fp.detach(), sock, deadline))

    def begin(self) -> None:
        super().begin()
        while self.status in _INTERIM:
            head: Any = self
            head.headers = None  # makes `begin` read another status
            super().begin()


class TimedHTTP(HTTPConnection):
    """Looks up, connects and sends within the time of its request."""

    response_class = _Answer

    def _new_conn(self) -> socket.socket:
        try:
            return first_that_answers(self, addresses_of(self._dns_host, self.port, self.timeout))
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"No connection to {self.host} in time") from error
        except OSError as error:
            raise NewConnectionError(self, f"No connection to {self.host}: {error}") from error

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(time_left(self.timeout))
        super().send(data)


class TimedHTTPS(TimedHTTP, HTTPSConnection):
    pass


def connect_by(
    pools: urllib3.PoolManager, plain: type[TimedHTTP] = TimedHTTP, tls: type[TimedHTTPS] = TimedHTTPS
) -> None:
    """Make the pools use these connection classes."""

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls: Any = plain

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls: Any = tls

    pools.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}
