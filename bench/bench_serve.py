"""Serving hot variants against a bare Starlette response of the same bytes in the same server, 64 connections."""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import requests
from running import bar, rows, running_stack, wait_for

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.devstack.ports import free_port

CONNECTIONS = 64


@dataclass
class Load:
    """What a burst of requests came to."""

    rate: float
    latencies: list[float]

    def percentile(self, share: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=6000, help="per round")
    parser.add_argument("--distinct", type=int, default=100_000, help="requests of which no two are alike")
    arguments = parser.parse_args()
    with running_stack() as stack:
        media_id = photo(stack)
        query = "select object_key from media_variants where media_id = %s and size = 'grid' and format = 'webp'"
        key = rows(stack, query, media_id)[0][0]
        port = free_port()
        environ = {**os.environ, **stack.environment}
        server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("serve_app.py")), str(port), key], env=environ
        )
        try:
            measure(f"http://127.0.0.1:{port}", port, media_id, arguments, server.pid, stack)
        finally:
            server.terminate()
            server.wait(20)


def photo(stack: Stack) -> int:
    files = {"profile_image": ("photo.jpg", photos.large(1), "image/jpeg")}
    stack.request("PATCH", "/users/me", headers=stack.user_headers(5), files=files).raise_for_status()
    wait_for(lambda: rows(stack, "select 1 from pending_images where status = 'complete'"), "the photo", 120)
    return int(rows(stack, "select id from media_files")[0][0])


def measure(url: str, port: int, media_id: int, arguments: argparse.Namespace, pid: int, stack: Stack) -> None:
    path = f"/serve/{media_id}?size=grid"
    accept = "Accept: image/webp,image/apng,*/*;q=0.8\r\n"
    wait_for(lambda: answers(url + "/health"), "the server", 60)
    etag = requests.get(url + path, headers={"Accept": "image/webp"}, timeout=10).headers["etag"]
    condition = f"{accept}If-None-Match: {etag}\r\n"
    kinds = {"bare": ("/bare", accept), "hot": (path, accept), "304": (path, condition)}
    found: dict[str, list[Load]] = {name: [] for name in kinds}
    for _ in range(arguments.rounds):
        for name, (target, headers) in kinds.items():
            found[name].append(asyncio.run(burst(port, [target] * arguments.requests, headers)))
    rate = {name: statistics.median(load.rate for load in loads) for name, loads in found.items()}
    for name, value in rate.items():
        print(f"{name}: {value:.0f} requests/s")
    hot = sorted(latency for load in found["hot"] for latency in load.latencies)
    total = Load(0, hot)
    print(f"hot: p50 {1000 * total.percentile(0.5):.1f} ms, p99 {1000 * total.percentile(0.99):.1f} ms")
    alone_hot, cold = alone(url, media_id, stack)
    print(f"one after the other: hot {1000 * alone_hot:.2f} ms, cold {1000 * cold:.2f} ms (medians)")
    process = psutil.Process(pid)
    before = process.memory_info().rss
    distinct = [f"{path}&x={number}" for number in range(arguments.distinct)]
    asyncio.run(burst(port, distinct, accept))
    grown = process.memory_info().rss / before
    print(f"resident memory after {arguments.distinct} distinct requests: {grown:.3f} of before")
    bar("serve_hot_over_bare", rate["hot"] / rate["bare"], 0.7, at_least=True)
    bar("serve_304_over_bare", rate["304"] / rate["bare"], 0.7, at_least=True)
    bar("serve_p99_over_p50", total.percentile(0.99) / total.percentile(0.5), 3)
    bar("serve_cold_over_hot_p50", cold / alone_hot, 3)
    bar("serve_rss_growth", grown, 1.1)


def alone(url: str, media_id: int, stack: Stack) -> tuple[float, float]:
    """Median seconds of a hot and of a cold request; a change that the database tells makes the manifest cold."""
    session = requests.Session()

    def one() -> float:
        began = time.perf_counter()
        session.get(f"{url}/serve/{media_id}?size=grid", headers={"Accept": "image/webp"}, timeout=10)
        return time.perf_counter() - began

    hot, cold = [], []
    for _ in range(100):
        one()
        hot.append(one())
        rows(stack, "update media_files set error = null where id = %s returning 1", media_id)
        time.sleep(0.02)  # until the news has arrived
        cold.append(one())
    return statistics.median(hot), statistics.median(cold)


async def burst(port: int, paths: list[str], headers: str) -> Load:
    """All paths over `CONNECTIONS` connections, each sending its next request when the last was answered."""
    waiting = iter(paths)
    latencies: list[float] = []

    async def connection() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for path in waiting:
            began = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            if length and b" 304 " not in head[:16]:
                await reader.readexactly(int(length))
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return Load(len(paths) / (time.perf_counter() - began), sorted(latencies))


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


if __name__ == "__main__":
    main()
