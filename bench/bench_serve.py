"""Serving hot variants against a bare Starlette response of the same bytes in the same server, 64 connections.

bench_serve.py [load] [cold] [memory]      parts; all of them without a word
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import psutil
import requests
import uvloop
from running import bar, rows, running_stack, wait_for

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.ports import free_port

CONNECTIONS = 64
ACCEPT = "Accept: image/webp,image/apng,*/*;q=0.8\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="load|cold|memory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=10_000, help="per round")
    parser.add_argument("--photos", type=int, default=6, help="whose variants are asked for cold")
    parser.add_argument("--distinct", type=int, default=100_000, help="requests of which no two are alike")
    arguments = parser.parse_args()
    parts = set(arguments.parts) or {"load", "cold", "memory"}
    with running_stack() as stack:
        ids = uploaded(stack, arguments.photos if "cold" in parts else 1)
        with server(stack, ids[0]) as (port, process):
            bench = Bench(stack, port, ids, process)
            if "load" in parts:
                bench.load(arguments.rounds, arguments.requests)
            if "cold" in parts:
                bench.cold()
            if "memory" in parts:
                bench.memory(arguments.distinct)


def uploaded(stack: Stack, count: int) -> list[int]:
    """Media ids of finished photos."""
    for number in range(count):
        files = {"product_image": ("photo.jpg", photos.large(number), "image/jpeg")}
        stack.request("PATCH", "/users/me", headers=stack.user_headers(5), files=files).raise_for_status()
    done = "select id from media_files where status = 'completed' order by id"
    wait_for(lambda: len(rows(stack, done)) == count, "the photos", 60 + 20 * count)
    return [row[0] for row in rows(stack, done)]


@contextmanager
def server(stack: Stack, media_id: int) -> Iterator[tuple[int, psutil.Process]]:
    query = "select object_key from media_variants where media_id = %s and size = 'grid' and format = 'webp'"
    key = rows(stack, query, media_id)[0][0]
    port = free_port()
    environ = {**os.environ, **stack.environment}
    program = str(Path(__file__).with_name("serve_app.py"))
    process = subprocess.Popen([sys.executable, program, str(port), key], env=environ)
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/health"), "the server", 60)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


@dataclass
class Load:
    """What a burst of requests came to."""

    rate: float
    latencies: list[float]

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


@dataclass
class Bench:
    stack: Stack
    port: int
    ids: list[int]
    process: psutil.Process

    def load(self, rounds: int, count: int) -> None:
        path = f"/serve/{self.ids[0]}?size=grid"
        url = f"http://127.0.0.1:{self.port}{path}"
        etag = requests.get(url, headers={"Accept": "image/webp"}, timeout=10).headers["etag"]
        kinds = {
            "bare": ("/bare", ACCEPT),
            "hot": (path, ACCEPT),
            "304": (path, f"{ACCEPT}If-None-Match: {etag}\r\n"),
        }
        found: dict[str, list[Load]] = {name: [] for name in kinds}
        cpu: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, (target, headers) in kinds.items():
                before = self.cpu_seconds()
                found[name].append(burst(self.port, [target] * count, headers))
                cpu[name].append(1e6 * (self.cpu_seconds() - before) / count)
        rate = {name: statistics.median(load.rate for load in loads) for name, loads in found.items()}
        for name, loads in found.items():
            p50, p99 = (1000 * statistics.median(load.percentile(share) for load in loads) for share in (0.5, 0.99))
            spent = statistics.median(cpu[name])
            print(
                f"{name}: {rate[name]:.0f} requests/s, {spent:.0f} us of CPU each, p50 {p50:.2f} ms, p99 {p99:.2f} ms"
            )
        bar("serve_hot_over_bare", rate["hot"] / rate["bare"], 0.7, at_least=True)
        bar("serve_304_over_bare", rate["304"] / rate["bare"], 0.7, at_least=True)
        slow = statistics.median(load.percentile(0.99) / load.percentile(0.5) for load in found["hot"])
        bar("serve_p99_over_p50", slow, 3)

    def cpu_seconds(self) -> float:
        spent = self.process.cpu_times()
        return spent.user + spent.system

    def cold(self) -> None:
        """Every variant with neither its manifest nor its bytes in memory, and again when both are.

        One of each image in turn, for its manifest is warm for the others; one after the other without a pause, for
        processes that were idle answer later, whatever they answer.
        """
        with requests.Session() as session:

            def seconds(path: str) -> float:
                began = time.perf_counter()
                session.get(f"http://127.0.0.1:{self.port}{path}", timeout=10).raise_for_status()
                return time.perf_counter() - began

            hot, cold = [], []
            query = "select size, format from media_variants where media_id = %s"
            paths = [
                [f"/serve/{media_id}?size={size}&format={kind}" for size, kind in rows(self.stack, query, media_id)]
                for media_id in self.ids
            ]
            paths[0].remove(f"/serve/{self.ids[0]}?size=grid&format=webp")  # the load has warmed it
            for turn in zip_longest(*paths):
                rows(self.stack, "update media_files set error = null where id = any(%s) returning 1", self.ids)
                time.sleep(0.1)  # until the news has arrived
                asked = [path for path in turn if path]
                cold += [seconds(path) for path in asked]
                hot += [seconds(path) for path in asked]
        p50 = statistics.median(hot), statistics.median(cold)
        print(f"one after the other, {len(cold)} variants: hot {1000 * p50[0]:.2f} ms, cold {1000 * p50[1]:.2f} ms")
        bar("serve_cold_over_hot_p50", p50[1] / p50[0], 3)

    def memory(self, distinct: int) -> None:
        path = f"/serve/{self.ids[0]}?size=grid"
        warm = distinct // 10  # what is remembered of requests is bounded; fill it first
        burst(self.port, [f"{path}&w={number:07}" for number in range(warm)], ACCEPT)
        before = self.process.memory_info().rss
        burst(self.port, [f"{path}&x={number:07}" for number in range(distinct)], ACCEPT)
        after = self.process.memory_info().rss
        print(f"resident memory: {before >> 20} MB, after {distinct} distinct requests {after >> 20} MB")
        bar("serve_rss_growth", after / before, 1.05)


def burst(port: int, paths: list[str], headers: str) -> Load:
    """All paths over `CONNECTIONS` connections, each sending its next request when the last was answered.

    All answers of a burst are of one length, which a first request tells: the client only counts bytes, so that it is
    the server that is measured.
    """
    length = answer_length(port, paths[0], headers)
    waiting = iter([f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode() for path in paths])

    async def all_of_them() -> Load:
        latencies: list[float] = []
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        made = [await loop.create_connection(lambda: Client(waiting, length, latencies), "127.0.0.1", port)
                for _ in range(CONNECTIONS)]  # fmt: skip
        await asyncio.gather(*(client.done for _, client in made))
        return Load(len(latencies) / (time.perf_counter() - began), sorted(latencies))

    return uvloop.run(all_of_them())


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, waiting: Iterable[bytes], length: int, latencies: list[float]) -> None:
        self._waiting = iter(waiting)
        self._length = length
        self._latencies = latencies
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        request = next(self._waiting, None)
        if request is None:
            self._transport.close()
            return
        self._left = self._length
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left == 0:
            self._latencies.append(time.perf_counter() - self._began)
            self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if error is None and self._left == 0:
            self.done.set_result(None)
        else:
            self.done.set_exception(error or ConnectionError("an answer of another length"))


def answer_length(port: int, path: str, headers: str) -> int:
    """Bytes of head and body."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        read = b""
        while b"\r\n\r\n" not in read:
            read += client.recv(65536)
    head = read.partition(b"\r\n\r\n")[0]
    assert head.startswith((b"HTTP/1.1 200", b"HTTP/1.1 304")), head
    body = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return len(head) + 4 + (int(body) if b" 304 " not in head[:16] and body else 0)


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


if __name__ == "__main__":
    main()
