"""Two gateways and two workers, each a process: what is accepted anywhere is done once, whoever is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from sqlalchemy import text

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.listings.conftest import photo
from imgpipe_orchestration_tests.recovery.conftest import attempts_by_outcome, count, servers
from imgpipe_orchestration_tests.scale.worker import CALLS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IMAGES = 80
ASKED = 120
ANSWER_SECONDS = 0.25


def environment(settings: Settings, **more: str) -> dict[str, str]:
    return {**os.environ, **settings.environment(), "LOG_LEVEL": "WARNING", **more}


@contextmanager
def gateway(settings: Settings) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environ = environment(settings, GATEWAY_PORT=str(port), FLASK_PORT=str(port))
    process = subprocess.Popen([sys.executable, "-m", "imgpipe_orchestration.gateway"], env=environ)
    try:
        wait_for(lambda: answers(port), "the gateway")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.02)


def worker(settings: Settings, *words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "imgpipe_orchestration_tests.scale.worker", *words]
    return subprocess.Popen(command, env=environment(settings), start_new_session=True)


def worked(settings: Settings, kind: str, workers: int, *words: str) -> float:
    """Seconds from the first item begun to the last one done, by so many workers."""
    services = Services(settings)
    before = count(services, "select coalesce(max(id), 0) from work_attempts")
    started = [worker(settings, kind, f"{kind}-{number}", *words) for number in range(workers)]
    for one in started:
        assert one.wait(180) == 0
    with transaction(services.engine) as connection:
        query = "select extract(epoch from max(ended_at) - min(started_at)) from work_attempts where id > :before"
        seconds = float(connection.scalar(text(query), {"before": before}))
    services.close()
    return seconds


def told(what: str, rates: dict[int, float]) -> None:
    """For whoever runs `make test-scale`."""
    sys.stdout.write(
        f"\n{what}: {rates[1]:.1f} items a second by one worker, {rates[2]:.1f} by two "
        f"({rates[2] / rates[1]:.2f} times), {os.cpu_count()} cores\n"
    )


def fed(gateways: list[str], images: int) -> list[str]:
    """Uploads through the gateways in turn; the URLs that were handed out."""
    photos = [photo(1600, 1200, seed=seed) for seed in range(4)]

    def one(number: int) -> str:
        answer = requests.post(
            f"{gateways[number % len(gateways)]}/api/upload/listing_image",
            files={"images": (f"{number}.jpg", photos[number % 4])},
            data={"listing_title": f"Bike {number}"},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        url: str = answer.json()["data"]["images"][0]["url"]
        return url

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(images)))


def test_a_worker_that_is_killed_loses_nothing_and_nothing_is_done_twice(open_folder: Path) -> None:
    with ExitStack() as stack:
        _, _, settings = stack.enter_context(servers(open_folder))
        gateways = [stack.enter_context(gateway(settings)) for _ in range(2)]
        urls = fed(gateways, IMAGES)
        services = Services(settings)
        doomed, heir = worker(settings, "listings", "doomed"), worker(settings, "listings", "heir")
        done = "select count(*) from image_queue where status = 'processed'"
        held = "select count(*) from work_items where state = 'claimed' and owner = 'doomed'"
        wait_for(lambda: count(services, done) > 5 and count(services, held) > 0, "work in the middle")
        os.killpg(doomed.pid, signal.SIGKILL)
        doomed.wait()
        assert count(services, done) < IMAGES
        assert heir.wait(180) == 0
        assert count(services, done) == IMAGES
        assert attempts_by_outcome(services)["done"] == IMAGES
        for number, url in enumerate(urls):
            # Whichever gateway took it, either serves it.
            answer = requests.get(f"{gateways[number % 2 - 1]}/{url.split('/', 3)[3]}", timeout=30)
            assert (answer.status_code, answer.headers["content-type"]) == (200, "image/webp")
        assert sum(1 for _ in services.listings_bucket.list()) == 2 * IMAGES
        services.close()


class Slow(BaseHTTPRequestHandler):
    """A partner that takes its time."""

    def do_GET(self) -> None:
        time.sleep(ANSWER_SECONDS)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@contextmanager
def partner() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_two_workers_wait_for_a_partner_together(open_folder: Path) -> None:
    with servers(open_folder) as (_, _, settings), partner() as url:
        services = Services(settings)
        seconds = {}
        for workers in (1, 2):
            with transaction(services.engine) as connection:
                connection.execute(text("drop table if exists made"))
                connection.execute(text("create table made (item bigint not null)"))
                items = [Item(workers * 1000 + number) for number in range(ASKED)]
                services.claims.enqueue(connection, CALLS, items)
            seconds[workers] = worked(settings, "calls", workers, url)
            assert count(services, "select count(*) from made") == ASKED
            assert count(services, "select count(distinct item) from made") == ASKED
        services.close()
    told("network-bound", {workers: ASKED / spent for workers, spent in seconds.items()})
    assert seconds[2] < seconds[1]


def test_two_workers_share_cores_without_getting_in_each_others_way(open_folder: Path) -> None:
    with ExitStack() as stack:
        _, _, settings = stack.enter_context(servers(open_folder))
        gateways = [stack.enter_context(gateway(settings)) for _ in range(2)]
        seconds = {}
        for workers in (1, 2):
            fed(gateways, IMAGES)
            seconds[workers] = worked(settings, "listings", workers)
        services = Services(settings)
        assert count(services, "select count(*) from image_queue where status = 'processed'") == 2 * IMAGES
        assert attempts_by_outcome(services) == {"done": 2 * IMAGES}
        services.close()
    told("CPU-bound", {workers: IMAGES / spent for workers, spent in seconds.items()})
    assert seconds[2] < 1.6 * seconds[1]
