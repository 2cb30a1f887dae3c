"""Connections that say nothing, or whose headers do not end, are closed.

uvicorn itself waits for a request's head for ever and keeps as many headers as come.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""From a connection's first moment, or a request's first byte, to the end of the request's head."""

HEAD_BYTES = 64 * 1024
"""Of a request's head, beyond what the socket hands over at once; browsers and proxies stay below 16 KB."""

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class ImpatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits of time and size on the head of each request."""

    head_seconds = HEAD_SECONDS
    _head_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._patience is not None:  # the head goes on
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LARGE)
                self.transport.close()

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
