"""Limits on connections: they are closed when no request arrives, when its head does not end, or when the client does
not read the answer.

uvicorn itself waits for a request's head for ever, accepts any number of headers, and keeps an answer for a client
that does not read it. Refusals sent from here do not pass through the app, so they carry HEADERS themselves.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from imgpipe_orchestration.web.headers import HEADERS

HEAD_SECONDS = 10.0
"""From the start of a connection, or the first byte of a request, to the end of the request's head."""

UNREAD_SECONDS = 60.0
"""How long a client may read nothing of an answer. Then the kernel ends the connection, and sending fails (Linux's
TCP_USER_TIMEOUT also counts the time in which the client's receive window is closed)."""

HEAD_BYTES = 64 * 1024
"""Limit of a request's head, beyond the first read of the socket; browsers and proxies stay below 16 KB."""


def _refusal(status: str) -> bytes:
    headers = {**HEADERS, "Content-Length": "0", "Connection": "close"}
    lines = [f"HTTP/1.1 {status}", *[f"{name}: {value}" for name, value in headers.items()]]
    return "\r\n".join([*lines, "", ""]).encode()


_NO_REQUEST = _refusal("400 Bad Request")
_TOO_LARGE = _refusal("431 Request Header Fields Too Large")


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits of time and size on the head of each request."""

    head_seconds = HEAD_SECONDS
    unread_seconds = UNREAD_SECONDS
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            taken = transport.get_extra_info("socket")
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(self.unread_seconds * 1000))
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._patience is not None:  # the head has not ended yet
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self.transport.write(_NO_REQUEST)
        self.transport.close()

    def _should_upgrade(self) -> bool:
        return False  # no route is a WebSocket; a server may ignore Upgrade (RFC 9110, section 7.8)

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn would log a warning at each Upgrade."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._patience = self.loop.call_later(self.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._head_bytes = 0

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
