"""Serving a variant against a bare Starlette response of the same bytes in the same server, over 64 connections."""

import asyncio
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import uvicorn
import uvloop
from running import bar, options, render_by_the_stack, rows, running_stack
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port, listening
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.photos import large

CONNECTIONS = 64
ACCEPT = "Accept: image/webp,image/apng,*/*;q=0.8\r\n"
SERVER = "--server"


def main() -> None:
    if SERVER in sys.argv:
        return serve(int(sys.argv[2]), sys.argv[3])
    arguments = options(__doc__, rounds=5, requests=10_000)
    with running_stack() as stack:
        render_by_the_stack(stack, [large(0)])
        with server(stack) as port:
            hot(port, arguments.rounds, arguments.requests)
    return None


@contextmanager
def server(stack: Stack) -> Iterator[int]:
    """The port of a `serve` in a process of its own."""
    key = rows(stack, "select object_key from media_variants where size = 'grid' and format = 'webp'")[0][0]
    port = free_port()
    command = [sys.executable, __file__, SERVER, str(port), key]
    process = subprocess.Popen(command, env={**os.environ, **stack.environment})
    try:
        wait_for(lambda: listening(port), "the server", 60)
        yield port
    finally:
        process.terminate()
        process.wait(20)


def serve(port: int, key: str) -> None:
    """The gateway; beside it, so that none of its limits, headers and counters slow it down, the bare response."""
    settings = load()
    content = Services(settings).media_bucket.get(key)
    gateway = create_app(settings)

    async def image(_: Request) -> Response:
        return Response(content, media_type="image/webp", headers={"ETag": '"bare"', "Vary": "Accept"})

    bare = Starlette(routes=[Route("/bare", image)])

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (bare if scope.get("path") == "/bare" else gateway)(scope, receive, send)

    listener = socket.create_server((LOOPBACK, port), backlog=2048)
    uvicorn.Server(uvicorn.Config(both, log_config=None, access_log=False, server_header=False)).run([listener])


def hot(port: int, rounds: int, count: int) -> None:
    path = "/serve/1?size=grid"
    etag = requests.get(f"http://{LOOPBACK}:{port}{path}", headers={"Accept": "image/webp"}, timeout=10).headers["etag"]
    kinds = {"bare": ("/bare", ACCEPT), "hot": (path, ACCEPT), "304": (path, f"{ACCEPT}If-None-Match: {etag}\r\n")}
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, (target, headers) in kinds.items():
            rate = burst(port, target, headers, count)
            if number:  # the first round warms up
                found[name].append(rate)
    rates = {name: statistics.median(values) for name, values in found.items()}
    print(", ".join(f"{name}: {value:.0f} requests/s" for name, value in rates.items()))
    bar("serve_hot_over_bare", rates["hot"] / rates["bare"], 0.7, at_least=True)
    bar("serve_304_over_bare", rates["304"] / rates["bare"], 0.7, at_least=True)


def burst(port: int, path: str, headers: str, count: int) -> float:
    """Answers a second to `count` requests over CONNECTIONS connections; each sends its next after an answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
    left = iter(range(count))

    async def client() -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        while next(left, None) is not None:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                assert length, head
                await reader.readexactly(int(length[1]))
            else:
                assert head.startswith(b"HTTP/1.1 304"), head
        writer.close()

    async def all_of_them() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
        return count / (time.perf_counter() - began)

    return uvloop.run(all_of_them())


if __name__ == "__main__":
    main()
