"""Serving variants against a bare Starlette response of the same bytes in the same server, over 64 connections; and
with nothing in memory against everything in memory."""

from __future__ import annotations

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
from dataclasses import dataclass
from itertools import zip_longest

import requests
import uvicorn
import uvloop
from running import bar, options, render_by_the_stack, rows, running_stack, wait_for
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port, listening
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load

CONNECTIONS = 64
ACCEPT = "Accept: image/webp,image/apng,*/*;q=0.8\r\n"
SERVER = "--server"


def main() -> None:
    if SERVER in sys.argv:
        return serve(int(sys.argv[2]), sys.argv[3])
    arguments = options(__doc__, rounds=5, requests=10_000, photos=6)
    with running_stack() as stack:
        render_by_the_stack(stack, [photos.large(seed) for seed in range(arguments.photos)])
        ids = [row[0] for row in rows(stack, "select id from media_files order by id")]
        with server(stack, ids[0]) as port:
            hot(port, f"/serve/{ids[0]}?size=grid", arguments.rounds, arguments.requests)
            cold(stack, port, ids)
    return None


@contextmanager
def server(stack: Stack, media_id: int) -> Iterator[int]:
    """The port of a `serve` in a process of its own."""
    query = "select object_key from media_variants where media_id = %s and size = 'grid' and format = 'webp'"
    key = rows(stack, query, media_id)[0][0]
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


def hot(port: int, path: str, rounds: int, count: int) -> None:
    etag = requests.get(f"http://{LOOPBACK}:{port}{path}", headers={"Accept": "image/webp"}, timeout=10).headers["etag"]
    kinds = {"bare": ("/bare", ACCEPT), "hot": (path, ACCEPT), "304": (path, f"{ACCEPT}If-None-Match: {etag}\r\n")}
    found: dict[str, list[Load]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, (target, headers) in kinds.items():
            load = burst(port, target, headers, count)
            if number:  # the first round warms up
                found[name].append(load)
    rate = {name: statistics.median(load.rate for load in loads) for name, loads in found.items()}
    print(", ".join(f"{name}: {value:.0f} requests/s" for name, value in rate.items()))
    bar("serve_hot_over_bare", rate["hot"] / rate["bare"], 0.7, at_least=True)
    bar("serve_304_over_bare", rate["304"] / rate["bare"], 0.7, at_least=True)
    bar("serve_p99_over_p50", statistics.median(load.p99 / load.p50 for load in found["hot"]), 3)


def cold(stack: Stack, port: int, ids: list[int]) -> None:
    """Every variant with neither its manifest nor its bytes in memory, and again when both are.

    One of each image in turn, for its manifest is warm for the others; one after the other without a pause, for
    processes that were idle answer later, whatever they answer.
    """
    times: dict[str, list[float]] = {"cold": [], "hot": []}
    query = "select size, format from media_variants where media_id = %s order by size, format"
    paths = [[f"/serve/{one}?size={size}&format={kind}" for size, kind in rows(stack, query, one)] for one in ids]
    paths[0].remove(f"/serve/{ids[0]}?size=grid&format=webp")  # the load has warmed it
    with requests.Session() as session:
        for turn in zip_longest(*paths):
            rows(stack, "update media_files set error = null where id = any(%s) returning 1", ids)
            time.sleep(0.1)  # until the news has arrived
            for values in times.values():
                for path in filter(None, turn):
                    began = time.perf_counter()
                    session.get(f"http://{LOOPBACK}:{port}{path}", timeout=10).raise_for_status()
                    values.append(time.perf_counter() - began)
    middle = {name: statistics.median(values) for name, values in times.items()}
    print(f"one after the other: hot {1000 * middle['hot']:.2f} ms, cold {1000 * middle['cold']:.2f} ms")
    bar("serve_cold_over_hot_p50", middle["cold"] / middle["hot"], 3)


@dataclass
class Load:
    """What a burst of requests came to: requests a second, seconds of an answer."""

    rate: float
    p50: float
    p99: float


def burst(port: int, path: str, headers: str, count: int) -> Load:
    """`count` requests over CONNECTIONS connections, each sending its next when the last was answered."""
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode()
    left = iter(range(count))
    latencies: list[float] = []

    async def client() -> None:
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
        while next(left, None) is not None:
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 200"):
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                assert length, head
                await reader.readexactly(int(length[1]))
            else:
                assert head.startswith(b"HTTP/1.1 304"), head
            latencies.append(time.perf_counter() - began)
        writer.close()

    async def all_of_them() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
        return count / (time.perf_counter() - began)

    rate = uvloop.run(all_of_them())
    percentiles = statistics.quantiles(latencies, n=100)
    return Load(rate, percentiles[49], percentiles[98])


if __name__ == "__main__":
    main()
