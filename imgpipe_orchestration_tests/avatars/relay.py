"""A provider that can go away and come back, and whose answers a test may rewrite: a relay in front of a stand-in."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import requests

Rewrite = Callable[[bytes], bytes]


class Relay:
    """Passes requests on to `target`. Its port stays its own while it is away: connections are refused then.

    `files` are served to whoever gets them, by path.
    """

    def __init__(self, target: str, rewrite: Rewrite = lambda body: body) -> None:
        self.rewrite = rewrite
        self.files: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self._target = target
        self._kept = _bound(0)
        self._port = self._kept.getsockname()[1]
        self._running: tuple[ThreadingHTTPServer, threading.Thread] | None = None
        parts = urlsplit(target)
        self.host = f"127.0.0.1:{self._port}"
        self.url = f"http://{self.host}{parts.path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.away()
        self._kept.close()

    def back(self) -> None:
        """Take connections."""
        server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler(), bind_and_activate=False)
        server.daemon_threads = True
        server.socket.close()
        server.socket = _bound(self._port)
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self._running = server, thread

    def away(self) -> None:
        """Refuse connections."""
        if self._running is not None:
            server, thread = self._running
            server.shutdown()
            server.server_close()
            thread.join()
            self._running = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer, base = self, self._target.removesuffix(urlsplit(self._target).path)

        class Handler(BaseHTTPRequestHandler):
            # HTTP/1.0: a connection a request, so that none outlives the server's going away.

            def log_message(self, *_: Any) -> None:
                """Quiet."""

            def do_GET(self) -> None:
                outer.fetched.append(self.path)
                found = outer.files.get(self.path)
                self._answer(404 if found is None else 200, "image/png", found or b"")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                names = ("Authorization", "Content-Type")
                headers = {name: self.headers[name] for name in names if name in self.headers}
                answer = requests.post(base + self.path, data=body, headers=headers, timeout=30)
                content = outer.rewrite(answer.content) if answer.ok else answer.content
                self._answer(answer.status_code, answer.headers["Content-Type"], content)

            def _answer(self, status: int, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        return Handler


def _bound(port: int) -> socket.socket:
    """A socket at a port of which there may be several; it refuses connections until it listens."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    return sock
