"""The listings pipeline against the bare parts it is made of, on real servers of this machine.

    accepted uploads a second     gateway : a FastAPI endpoint that only writes the same bytes to S3, with boto3
    answer time of an upload      while a worker is busy : while none is
    images drained a second       the queue : decode, resize and encode in a loop, in as many processes
    a tick of the sensor          10,000 images waiting : 10 waiting

Each pair is measured in turns, so that whatever else the machine does hits both; the figures are medians.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

from listings_parts import BOUNDARY, Server, fill, forget, fresh, multipart, photo, photos
from running import bar, wait_for

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.listings import control, steps, store
from imgpipe_orchestration.listings.drain import drain, lower_priority
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings, load
from imgpipe_orchestration.storage.rows import transaction

CLIENTS = 8
BARS = {"uploads": 0.6, "answers": 3.0, "drain": 0.8, "tick": 1.3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(BARS), action="append")
    parser.add_argument("--images", type=int, default=500, help="images that are drained")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # else semaphores are left, and told of on the terminal
        with closing(Services(load())) as services:
            control.run(services, arguments.worker)
        return
    only = arguments.only or list(BARS)
    measured: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        postgres = stack.enter_context(Postgres(Path(folder) / "postgres", free_port()))
        s3 = S3(Path(folder) / "s3", free_port(), access_key="bench-key", secret_key="bench-secret")
        stack.enter_context(s3)
        settings = fresh(postgres, s3, folder)
        if "uploads" in only or "answers" in only:
            gateway = stack.enter_context(Server("imgpipe_orchestration.gateway", settings, folder))
            if "uploads" in only:
                ports = {"gateway": gateway.port}
                for client in ("boto3", "obstore"):
                    bare = stack.enter_context(Server("bench.bare_upload", settings, folder, client=client))
                    ports[f"bare, {client}"] = bare.port
                measured["uploads"] = uploads(ports)
            if "answers" in only:
                measured["answers"] = answers(gateway.port, settings)
        if "drain" in only:
            measured["drain"] = drained(fresh(postgres, s3, folder), arguments.images)
        if "tick" in only:
            measured["tick"] = ticks(fresh(postgres, s3, folder), fresh(postgres, s3, folder))
    for name, value in measured.items():
        bar(f"listings-{name}", value, BARS[name], at_least=name in {"uploads", "drain"})


# --- accepted uploads ------------------------------------------------------------------------------------------------


def uploads(ports: dict[str, int], *, rounds: int = 7, seconds: float = 3.0) -> float:
    """The gateway's rate over that of the endpoint with boto3; the other's is printed."""
    body = multipart(photo())
    for port in ports.values():
        rate(port, body, 1.0)
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(rounds):
        for name in sorted(ports, reverse=bool(number % 2)):
            rates[name].append(rate(ports[name], body, seconds))
    for name, values in rates.items():
        ratio = statistics.median(ours / other for ours, other in zip(rates["gateway"], values, strict=True))
        shown = ", ".join(f"{v:.0f}" for v in values)
        print(f"uploads/s {name}: {statistics.median(values):.0f} ({shown}); the gateway over it: {ratio:.2f}")
    return statistics.median(o / b for o, b in zip(rates["gateway"], rates["bare, boto3"], strict=True))


def rate(port: int, body: bytes, seconds: float) -> float:
    """Answered uploads a second of `CLIENTS` clients that send one after the other."""
    until = time.monotonic() + seconds
    counts = [0] * CLIENTS

    def client(number: int) -> None:
        for _ in sent(port, body, until):
            counts[number] += 1

    started = time.monotonic()
    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.monotonic() - started)


def sent(port: int, body: bytes, until: float, *, pause: float = 0.0) -> Iterator[float]:
    """Upload over one connection until the moment `until`; the answer time of each, seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    while time.monotonic() < until:
        started = time.monotonic()
        connection.request("POST", "/api/upload/listing_image", body, headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        yield time.monotonic() - started
        time.sleep(pause)
    connection.close()


# --- answer times ----------------------------------------------------------------------------------------------------


def answers(port: int, settings: Settings, *, rounds: int = 3, seconds: float = 6.0) -> float:
    body = multipart(photo())
    times: dict[str, list[float]] = {"idle": [], "busy": []}
    ratios = []
    with closing(Services(settings)) as services:
        for _ in range(rounds):
            forget(services)
            idle = p95(sent(port, body, time.monotonic() + seconds, pause=0.05))
            fill(services, 1500)
            with worker(settings):
                before = processed(services)
                wait_for(lambda since=before: processed(services) > since + 20, "the worker to begin", 60)
                busy = p95(sent(port, body, time.monotonic() + seconds, pause=0.05))
                assert waiting(services) > 50, "the worker ran dry while it was measured"
            times["idle"].append(idle)
            times["busy"].append(busy)
            ratios.append(busy / idle)
    for name, values in times.items():
        print(f"p95 answer {name}: {', '.join(f'{1000 * v:.1f} ms' for v in values)}")
    return statistics.median(ratios)


def p95(times: Iterator[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


@contextmanager
def worker(settings: Settings) -> Iterator[None]:
    """A run over the queue in a process of its own, as Dagster would start it."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--worker", f"bench-{uuid4()}"], env={**os.environ, **settings.environment()}
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


# --- the drain -------------------------------------------------------------------------------------------------------


def drained(settings: Settings, images: int, *, rounds: int = 5) -> float:
    originals = photos()
    options = steps.options_of(settings)
    cores = os.cpu_count() or 1
    ratios: list[float] = []
    rates: dict[str, list[float]] = {"queue": [], "bare": []}
    with (
        closing(Services(settings)) as services,
        ProcessPoolExecutor(cores, mp_context=get_context("forkserver")) as pool,
    ):
        warm(services)
        list(pool.map(bare, [(originals[0], options)] * cores * 4))
        for number in range(rounds):
            fill(services, images)

            def queue() -> float:
                done = drain(services, f"bench-{uuid4()}")
                assert done.processed == images, done
                return images / done.seconds

            def loop() -> float:
                started = time.monotonic()
                work = [(originals[n % len(originals)], options) for n in range(images)]
                assert sum(1 for _ in pool.map(bare, work)) == images
                return images / (time.monotonic() - started)

            for name in sorted(rates, reverse=bool(number % 2)):
                rates[name].append(queue() if name == "queue" else loop())
            ratios.append(rates["queue"][-1] / rates["bare"][-1])
    for name, values in rates.items():
        print(f"images/s {name}: {statistics.median(values):.1f} ({', '.join(f'{v:.1f}' for v in values)})")
    return statistics.median(ratios)


def bare(work: tuple[bytes, steps.Options]) -> int:
    """The engine and nothing else, as polite to other processes as the queue's workers are."""
    lower_priority()
    return len(steps.make(*work).data)


def warm(services: Services) -> None:
    """Start the worker processes, as the start of a run does once."""
    futures = [services.workshop.submit(time.sleep, 0.2) for _ in range(services.workshop.workers)]
    for future in futures:
        future.result()


# --- the sensor ------------------------------------------------------------------------------------------------------


def ticks(few: Settings, many: Settings, *, rounds: int = 60) -> float:
    with closing(Services(few)) as ten, closing(Services(many)) as ten_thousand:
        sides = {"10": ten, "10,000": ten_thousand}
        for name, services in sides.items():
            fill(services, int(name.replace(",", "")))
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds + 10):
            for name in sorted(sides, reverse=bool(number % 2)):
                started = time.perf_counter()
                assert control.reason_to_wait(sides[name], None) is None
                if number >= 10:
                    times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"tick with {name} waiting: {1000 * value:.2f} ms")
    return medians["10,000"] / medians["10"]


# --- what all measurements need --------------------------------------------------------------------------------------


def processed(services: Services) -> int:
    with transaction(services.engine) as connection:
        return store.counts(connection)["processed"]


def waiting(services: Services) -> int:
    with transaction(services.engine) as connection:
        return store.waiting(connection)


if __name__ == "__main__":
    main()
