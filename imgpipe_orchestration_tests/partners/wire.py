"""A server on loopback that does exactly what a test tells it, for behaviour no well-behaved server has."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import requests

Behaviour = Callable[[BaseHTTPRequestHandler, int], None]
"""Gets the request and its number, from 0, and writes the whole answer."""


class Server:
    """The running server: its address and the requests it got."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.requests]


def tls_server(certificate: Path) -> ssl.SSLContext:
    """For sockets of a server that shows this certificate; its key is in the same file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@contextmanager
def serving(behave: Behaviour, *, certificate: Path | None = None, port: int = 0) -> Iterator[Server]:
    """A server, on a free port unless told otherwise; with a certificate, over TLS."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                number = len(server.requests)
                server.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.sent = body
            try:
                behave(self, number)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                self.close_connection = True

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    http.daemon_threads = True
    if certificate is not None:
        http.socket = tls_server(certificate).wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    server = Server(http.server_address[1])
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def reply(handler: BaseHTTPRequestHandler, body: bytes = b"", status: int = 200, **headers: str) -> None:
    """A complete answer; header names are written with underscores."""
    handler.send_response(status)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def answering(said: Any, status: int = 200) -> AbstractContextManager[Server]:
    """A server that gives one answer to everything: JSON, which bytes are already."""
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return serving(lambda handler, _: reply(handler, body, status, Content_Type="application/json"))


def half_of(part: str, store: str) -> Behaviour:
    """Have an object store answer, with the first half of each object whose path has `part` in it."""

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        torn = handler.command == "GET" and part in handler.path
        pass_on(handler, store, lambda body: body[: len(body) // 2] if torn else body)

    return answer


def pass_on(handler: BaseHTTPRequestHandler, to: str, alter: Callable[[bytes], bytes] = lambda body: body) -> None:
    """Have another server answer, and alter the body of its answer. A signature holds with the host it was made for."""
    sent: bytes = handler.sent  # type: ignore[attr-defined]  # by `serving`
    answer = requests.request(handler.command, to + handler.path, headers=dict(handler.headers), data=sent, timeout=20)
    body = alter(answer.content)
    names = ("Content-Type", "ETag", "Last-Modified")
    headers = {name.replace("-", "_"): answer.headers[name] for name in names if name in answer.headers}
    length = answer.headers.get("Content-Length", "0") if handler.command == "HEAD" else str(len(body))
    reply(handler, body, answer.status_code, **headers, Content_Length=length)
