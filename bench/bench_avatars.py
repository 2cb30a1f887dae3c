"""Avatars: how near the providers' own bound, how much faster than one after another; grids cut, how fast, how right.

The providers are the stand-ins with fixed delays. The bound is what delays and limits alone allow: one question for the
people, one for the first prompt, then all pictures in as many waves as the limit makes. Both orders run in one process
that has imported everything, as a Dagster run does, in turns; medians count.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from running import bar, services_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from imgpipe_orchestration.avatars import records, store, work
from imgpipe_orchestration.avatars.lanes import Lanes
from imgpipe_orchestration.avatars.model import TaskRequest, TaskStatus
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.devstack.services import StandIns
from imgpipe_orchestration.imaging.portraits.grid import cut, find_layout
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.imaging.grid_samples import right, sample

FLOWISE_SECONDS = 0.2
IMAGE_SECONDS = 0.5
LIMIT = 5
ONE_BY_ONE = Lanes(threading.Semaphore(1), threading.Semaphore(1), people=1)
"""The order of the documents: one person at a time, one thing at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--grids", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as services:
        pipeline(services, arguments.people, arguments.rounds)
    grids(arguments.grids)


def pipeline(services: Services, people: int, rounds: int) -> None:
    # The same people each time: from the second run on the stand-ins have their pictures drawn already, so that only
    # the delays are theirs and the processor is ours.
    run(services, people, Lanes.of(services.settings))
    together, sequence, cpu = [], [], []
    for _ in range(rounds):
        before = time.process_time()
        together.append(run(services, people, Lanes.of(services.settings)))
        cpu.append(time.process_time() - before)
        sequence.append(run(services, people, ONE_BY_ONE))
    bound = 2 * FLOWISE_SECONDS + math.ceil(2 * people / LIMIT) * IMAGE_SECONDS
    wall, alone = statistics.median(together), statistics.median(sequence)
    print(f"{people} people, {LIMIT} calls at once, Flowise {FLOWISE_SECONDS} s, images {IMAGE_SECONDS} s")
    print(f"medians of {rounds}: wall clock {wall:.2f} s, bound {bound:.2f} s, one after another {alone:.2f} s")
    print(f"our CPU time {statistics.median(cpu):.2f} s, {1000 * statistics.median(cpu) / people:.0f} ms a person")
    bar("avatars_wall_over_bound", wall / bound, 1.25)
    bar("avatars_sequential_over_parallel", alone / wall, 4, at_least=True)


def run(services: Services, people: int, lanes: Lanes) -> float:
    """Seconds from the request to the last URL."""
    began = time.perf_counter()
    with transaction(services.engine) as connection:
        task = store.create(connection, services.claims, TaskRequest(count=people, seed=1))
    work.run_data(services, f"data {task.id}")
    work.run_images(services, f"images {task.id}", lanes=lanes)
    seconds = time.perf_counter() - began
    with transaction(services.engine) as connection:
        task = records.get(connection, task.id)
    if task.status is not TaskStatus.COMPLETED or task.error_log:
        raise SystemExit(f"the task is {task.status}: {task.error_log or task.waiting_for}")
    return seconds


def grids(count: int) -> None:
    good, seconds = 0, []
    for number in range(count):
        grid = sample(number, 2048)
        before = time.process_time()
        layout = find_layout(grid.image)
        cut(grid.image, layout)
        seconds.append(time.process_time() - before)
        if len(layout.cells) == 4 and all(right(*pair) for pair in zip(grid.cells, layout.cells, strict=True)):
            good += 1
        else:
            print(f"wrong: {grid.said}: {layout.shape.value}")
    print(f"split and trim of a 2048 px grid: {1000 * statistics.median(seconds):.1f} ms CPU, median of {count}")
    bar("avatars_split_cpu_ms", 1000 * statistics.median(seconds), 60)
    bar("avatars_grids_right_percent", 100 * good / count, 99, at_least=True)


@contextmanager
def running(folder: Path) -> Iterator[Services]:
    """Services on servers and stand-ins of our own."""
    postgres = Postgres(folder / "postgres", free_port(), durable=False)
    s3 = S3(folder / "s3", free_port(), access_key="bench-access", secret_key="bench-secret")
    partners = StandIns(folder / "standins", free_port())
    with postgres, s3, partners:
        delays = {"flowise": FLOWISE_SECONDS, "openai": IMAGE_SECONDS}
        requests.post(f"{partners.url}/_standin/delays", json=delays, timeout=5).raise_for_status()
        settings = Settings(
            imgpipe_data_dir=folder,
            database_url=postgres.ensure_database("imgpipe"),
            s3_endpoint=s3.url,
            s3_access_key=s3.access_key,
            s3_secret_key=s3.secret_key,
            openai_api_key="bench",
            openai_base_url=f"{partners.url}/openai/v1",
            flowise_base_url=f"{partners.url}/flowise",
            multithread_flowise=LIMIT,
            avatar_parallel_images=LIMIT,
        )
        with services_of(settings) as services:
            services.avatars_bucket.ensure()
            yield services


if __name__ == "__main__":
    main()
