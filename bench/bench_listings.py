"""The listings pipeline against the bare parts it is made of, on real servers of this machine.

    accepted uploads a second     gateway : a FastAPI endpoint that only writes the same bytes to the same S3
    answer time of an upload      while a worker is busy : while none is
    images drained a second       the queue : decode, resize and encode in a loop, in as many processes
    a tick of the sensor          10,000 images waiting : 10 waiting

Each pair is measured in turns, so that whatever else the machine does hits both; the figures are medians.
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

from PIL import Image
from sqlalchemy import text

from imgpipe_orchestration.devstack.photos import open_photo
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.listings import control, steps, store
from imgpipe_orchestration.listings.drain import be_polite, drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings, load
from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.rows import connect, transaction

BYTES = 60_000
BOUNDARY = "bench"
CLIENTS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["uploads", "answers", "drain", "tick"], action="append")
    parser.add_argument("--images", type=int, default=500, help="images that are drained")
    parser.add_argument("--profile", action="store_true", help="profile the drain instead of measuring")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        control.run(Services(load()), arguments.worker, arguments.worker)
        return
    only = arguments.only or ["uploads", "answers", "drain", "tick"]
    bars: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        postgres = stack.enter_context(Postgres(Path(folder) / "postgres", free_port()))
        s3 = S3(Path(folder) / "s3", free_port(), access_key="bench-key", secret_key="bench-secret")
        stack.enter_context(s3)
        settings = fresh(postgres, s3, folder)
        if arguments.profile:
            profile_drain(settings, arguments.images)
            return
        if "uploads" in only or "answers" in only:
            gateway = stack.enter_context(Server("imgpipe_orchestration.gateway", settings, folder))
            if "uploads" in only:
                bare = stack.enter_context(Server("bench.bare_upload", settings, folder, environ={"PORT": "0"}))
                bars.append(uploads(gateway.port, bare.port))
            if "answers" in only:
                bars.append(answers(gateway.port, settings))
        if "drain" in only:
            bars.append(drained(fresh(postgres, s3, folder), arguments.images))
        if "tick" in only:
            bars.append(ticks(fresh(postgres, s3, folder), fresh(postgres, s3, folder)))
    print("\n".join(bars))


# --- accepted uploads ------------------------------------------------------------------------------------------------


def uploads(gateway: int, bare: int, *, rounds: int = 7, seconds: float = 3.0) -> str:
    body = multipart(photo())
    ports = {"gateway": gateway, "bare": bare}
    for port in ports.values():
        rate(port, body, 1.0)
    rates: dict[str, list[float]] = {"gateway": [], "bare": []}
    for number in range(rounds):
        for name in sorted(ports, reverse=bool(number % 2)):
            rates[name].append(rate(ports[name], body, seconds))
    ratios = [ours / theirs for ours, theirs in zip(rates["gateway"], rates["bare"], strict=True)]
    for name, values in rates.items():
        print(f"uploads/s {name}: {statistics.median(values):.0f} ({', '.join(f'{v:.0f}' for v in values)})")
    return bar("uploads", statistics.median(ratios), ">=", 0.6)


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


def answers(port: int, settings: Settings, *, rounds: int = 3, seconds: float = 6.0) -> str:
    body = multipart(photo())
    times: dict[str, list[float]] = {"idle": [], "busy": []}
    ratios = []
    services = Services(settings)
    for _ in range(rounds):
        # The idle measurement waits until nothing is left to do, and the busy one until much is.
        drain(services, f"clear-{uuid4()}")
        idle = p95(sent(port, body, time.monotonic() + seconds, pause=0.05))
        fill(services, 1500)
        with worker(settings):
            before = processed(services)
            wait(lambda since=before: processed(services) > since + 20, "the worker to begin")
            busy = p95(sent(port, body, time.monotonic() + seconds, pause=0.05))
            assert waiting(services) > 50, "the worker ran dry while it was measured"
        forget(services)
        times["idle"].append(idle)
        times["busy"].append(busy)
        ratios.append(busy / idle)
    services.close()
    for name, values in times.items():
        print(f"p95 answer {name}: {', '.join(f'{1000 * v:.1f} ms' for v in values)}")
    return bar("answers", statistics.median(ratios), "<=", 3.0)


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


def drained(settings: Settings, images: int, *, rounds: int = 3) -> str:
    services = Services(settings)
    warm(services)
    originals = photos()
    options = steps.options_of(settings)
    cores = os.cpu_count() or 1
    ratios: list[float] = []
    rates: dict[str, list[float]] = {"queue": [], "bare": []}
    with ProcessPoolExecutor(cores, mp_context=get_context("forkserver")) as pool:
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
    services.close()
    for name, values in rates.items():
        print(f"images/s {name}: {statistics.median(values):.1f} ({', '.join(f'{v:.1f}' for v in values)})")
    return bar("drain", statistics.median(ratios), ">=", 0.8)


def bare(work: tuple[bytes, steps.Options]) -> int:
    """The engine and nothing else, as polite to other processes as the queue's workers are."""
    be_polite()
    return len(steps.make(*work).data)


def warm(services: Services) -> None:
    """Start the worker processes, as the start of a run does once."""
    futures = [services.workshop.submit(time.sleep, 0.2) for _ in range(services.workshop.workers)]
    for future in futures:
        future.result()


def profile_drain(settings: Settings, images: int) -> None:
    """Where the run's own process spends its time, by function."""
    import cProfile
    import pstats

    services = Services(settings)
    warm(services)
    fill(services, images)
    profiles: list[cProfile.Profile] = []
    plain = threading.Thread.run

    def profiled(thread: threading.Thread) -> None:
        profile = cProfile.Profile(time.thread_time)
        profiles.append(profile)
        profile.runcall(plain, thread)

    threading.Thread.run = profiled  # type: ignore[method-assign]
    started = time.monotonic(), time.process_time()
    done = drain(services, "profile")
    wall, cpu = time.monotonic() - started[0], time.process_time() - started[1]
    print(f"{done.processed} images in {wall:.2f} s, of which {cpu:.2f} s CPU in this process")
    stats = pstats.Stats(*profiles)
    stats.sort_stats("cumulative").print_stats("imgpipe|sqlalchemy/engine/base|botocore/client|pebble", 40)
    stats.sort_stats("tottime").print_stats(25)
    services.close()


# --- the sensor ------------------------------------------------------------------------------------------------------


def ticks(few: Settings, many: Settings, *, rounds: int = 60) -> str:
    sides = {"10": Services(few), "10,000": Services(many)}
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
    for services in sides.values():
        services.close()
    return bar("tick", medians["10,000"] / medians["10"], "<=", 1.3)


# --- what all need ---------------------------------------------------------------------------------------------------


def fresh(postgres: Postgres, s3: S3, folder: str) -> Settings:
    """Settings of a database and a bucket of their own."""
    name = f"bench_{uuid4().hex[:8]}"
    settings = Settings(
        imgpipe_data_dir=Path(folder),
        database_url=postgres.ensure_database(name),
        s3_endpoint=s3.url,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        media_bucket_name="media",
        listings_bucket_name=name.replace("_", "-"),
        gateway_port=free_port(),
        flask_port=free_port(),
        listings_run_seconds=600,
    )
    engine = connect(settings.database_url)
    migrations.upgrade(engine)
    engine.dispose()
    services = Services(settings)
    services.listings_bucket.ensure()
    services.close()
    return settings


class Server(Part):
    """A Python module that serves HTTP."""

    name = "server"

    def __init__(self, module: str, settings: Settings, folder: str, *, environ: dict[str, str] | None = None) -> None:
        port = free_port() if environ else settings.gateway_port
        extra = {"PORT": str(port)} if environ else {}
        root = str(Path(__file__).resolve().parent.parent)
        whole = {**os.environ, **settings.environment(), **extra, "PYTHONPATH": root}
        self.name = module  # of its log file
        self._module = module
        super().__init__(Path(folder) / module, port, environ=whole)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", self._module]


def photo(seed: int = 0) -> bytes:
    """A real photograph as a JPEG of about 60 KB."""
    name = ("astronaut", "coffee", "chelsea", "retina")[seed % 4]
    image = open_photo(name).resize((1280, 960), Image.Resampling.LANCZOS)
    if seed // 4 % 2:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    best = b""
    for quality in range(20, 96, 3):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if len(file.getvalue()) > BYTES * 1.05:
            break
        best = file.getvalue()
    return best


def photos() -> list[bytes]:
    return [photo(seed) for seed in range(8)]


def multipart(data: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="listing_title"\r\n\r\nA bike\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def fill(services: Services, count: int) -> None:
    """Put `count` images into the queue; past 2000, which nobody works on, without their originals."""
    originals = photos()
    bucket = services.listings_bucket
    queue = store.queue_of(services.settings)
    names = []
    for _ in range(count):
        public_id = uuid4()
        names.append(
            store.NewImage(
                public_id,
                f"bench-{public_id.hex}.webp",
                "a.jpg",
                f"originals/{public_id}",
                "image/jpeg",
                BYTES,
                1280,
                960,
            )
        )
    if count <= 2000:
        for number, image in enumerate(names):
            bucket.put(image.original_key, originals[number % len(originals)], content_type="image/jpeg")
    with transaction(services.engine) as connection:
        items = store.add(connection, names, title="Bench", user_id=None, max_retries=3)
        services.claims.enqueue(connection, queue, list(items.values()))


def forget(services: Services) -> None:
    """Empty the queue."""
    with transaction(services.engine) as connection:
        for table in ("work_items", "image_queue"):
            connection.execute(text(f"delete from {table}"))


def processed(services: Services) -> int:
    with transaction(services.engine) as connection:
        return store.counts(connection)["processed"]


def waiting(services: Services) -> int:
    with transaction(services.engine) as connection:
        return store.waiting(connection)


def wait(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def bar(name: str, value: float, sign: str, limit: float) -> str:
    ok = value >= limit if sign == ">=" else value <= limit
    return f"bar listings-{name} {value:.2f} {sign} {limit} {'ok' if ok else 'short'}"


if __name__ == "__main__":
    main()
