"""urllib3's connections with one time limit for a whole answer.

A socket's timeout counts from one byte to the next: a server that drips its headers, chunk sizes or trailers, or says
`100 Continue` for ever, would hold a thread as long as it likes. Here no wait for bytes outlasts the deadline.
"""

from __future__ import annotations

import http.client
import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from imgpipe_orchestration.partners.retry import Deadline

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@contextmanager
def answered_by(deadline: Deadline) -> Iterator[None]:
    """What is asked for inside has until `deadline` to arrive in full, also when its body is read later."""
    token = _deadline.set(deadline)
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left(longest: float | None, deadline: Deadline | None = None) -> float | None:
    """Seconds that the next wait on a socket may take, at most `longest`.

    Raises:
        TimeoutError: none are left.
    """
    deadline = deadline or _deadline.get()
    if deadline is None:
        return longest
    remaining = deadline.remaining
    if remaining <= 0:
        raise TimeoutError("the time for the whole answer is over")
    return remaining if longest is None else min(longest, remaining)


class _InTime(io.RawIOBase):
    """A socket's bytes until the deadline."""

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


class _Answer(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        deadline = _deadline.get()
        if deadline is not None:
            self.fp = io.BufferedReader(_InTime(self.fp.detach(), sock, deadline))


class TimedHTTP(HTTPConnection):
    response_class = _Answer

    def send(self, data: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(time_left(self.timeout))
        super().send(data)


class TimedHTTPS(TimedHTTP, HTTPSConnection):
    pass


def connect_by(
    pools: urllib3.PoolManager, plain: type[TimedHTTP] = TimedHTTP, tls: type[TimedHTTPS] = TimedHTTPS
) -> None:
    """Have the pools make these connections."""

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls: Any = plain

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls: Any = tls

    pools.pool_classes_by_scheme = {"http": HTTPPool, "https": HTTPSPool}
