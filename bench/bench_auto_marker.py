"""Documents marked per second through the whole step, what a tick reads, and memory.

On the embedded MongoDB, or on the server that MONGODB_TEST_URL names. The step (plan, job instances in PostgreSQL,
find, guarded writes) takes turns with a loop that only sends the same guarded writes for the same number of documents.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pymongo import UpdateOne, monitoring
from running import bar, services_of

from imgpipe_orchestration.auto_marker import steps
from imgpipe_orchestration.auto_marker.due import due
from imgpipe_orchestration.auto_marker.model import unchanged
from imgpipe_orchestration.auto_marker.store import NEWS, ImageConfigs, create_indexes
from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings

BATCH = 50
SPEC_RATE = 100
MEMORY_MB = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["speed", "tick", "memory"], action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--customers", type=int, default=100, help="customers with 50 documents each in a round")
    parser.add_argument("--documents", type=int, default=1_000_000, help="in the collection of the tick")
    parser.add_argument("--memory-documents", type=int, default=100_000)
    parser.add_argument("--memory-child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_child:
        mark_everything()
        return
    only = arguments.only or ["speed", "tick", "memory"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(Postgres(folder / "postgres", free_port()))
        given = os.environ.get("MONGODB_TEST_URL", "").rstrip("/")
        mongo = given or stack.enter_context(Mongo(folder / "mongo", free_port())).url
        print(f"MongoDB: {'MONGODB_TEST_URL' if given else 'embedded'}")
        if "speed" in only:
            with marking(postgres, mongo, "speed") as services:
                ratio, rate = speed(services, arguments.rounds, arguments.customers)
            bar("auto-marker-step-against-bare-writes", ratio, 0.8, at_least=True)
            bar("auto-marker-times-the-documents-rate", rate / SPEC_RATE, 30, at_least=True)
        if "tick" in only:
            with marking(postgres, mongo, "tick") as services:
                bar("auto-marker-customers-touched-of-1000", tick(services, arguments.documents), 3)
        if "memory" in only:
            with marking(postgres, mongo, "memory") as services:
                bar("auto-marker-memory-MB", memory(services, arguments.memory_documents), MEMORY_MB)


@contextmanager
def marking(postgres: Postgres, mongo: str, name: str) -> Iterator[Services]:
    """Services on databases of their own, of which the one in MongoDB is dropped: that server may be somebody's."""
    settings = Settings(database_url=postgres.ensure_database(name), mongodb_url=f"{mongo}/imgpipe_bench_{name}")
    with services_of(settings) as services:
        drop = partial(services.documents.client.drop_database, services.documents.database.name)
        drop()
        try:
            yield services
        finally:
            drop()


def seed(services: Services, customers: list[str], each: int, **fields: Any) -> dict[str, list[dict[str, Any]]]:
    """Pending documents of each customer, with a summary of 200 letters."""
    made = {
        customer: [
            {
                "customer_id": customer,
                "image": f"https://cdn.example.com/{customer}/{n}.jpg",
                "short_summary": "s" * 200,
                **fields,
            }
            for n in range(each)
        ]
        for customer in customers
    }
    everything = [document for documents in made.values() for document in documents]
    for start in range(0, len(everything), 10_000):
        services.documents.collection(NEWS).insert_many(everything[start : start + 10_000])
    return made


def speed(services: Services, rounds: int, customers: int) -> tuple[float, float]:
    """The median of the rounds' ratios of step to bare writes, and the median rate of the step, documents a second."""
    create_indexes(services.documents)
    ratios, rates = [], []
    for number in range(rounds):
        # In turns, the order changing: whatever else the machine does hits both.
        kinds = [bare, step] if number % 2 else [step, bare]
        rate = {kind: rate_of(kind, services, f"{kind.__name__}{number}", customers) for kind in kinds}
        ratios.append(rate[step] / rate[bare])
        rates.append(rate[step])
        print(f"round {number}: bare {rate[bare]:,.0f}/s, step {rate[step]:,.0f}/s")
    return statistics.median(ratios), statistics.median(rates)


def rate_of(kind: Any, services: Services, prefix: str, customers: int) -> float:
    """Documents a second of one way of marking."""
    services.documents.collection(NEWS).delete_many({})  # every round finds the same
    made = seed(services, [f"{prefix}-{n}" for n in range(customers)], BATCH)
    configs = ImageConfigs(services.documents)
    for customer in made:
        configs.add_new(customer)
    began = time.perf_counter()
    marked = kind(services, made)
    seconds = time.perf_counter() - began
    assert marked == customers * BATCH, (marked, customers * BATCH)
    return float(marked / seconds)


def bare(services: Services, made: dict[str, list[dict[str, Any]]]) -> int:
    """The same writes, ids and images known beforehand: nothing is read, nothing recorded."""
    news = services.documents.collection(NEWS)
    marked = 0
    for customer, documents in made.items():
        writes = [
            UpdateOne(
                unchanged(customer, document),
                {
                    "$set": {"clean_image": document["image"], "auto_marked_cleaned": True},
                    "$currentDate": {"clean_image_updated_at": True},
                },
            )
            for document in documents
        ]
        marked += news.bulk_write(writes, ordered=False).modified_count
    return marked


def step(services: Services, _: dict[str, list[dict[str, Any]]]) -> int:
    todo = steps.plan(services, scheduled=True)
    return sum(figures.marked for figures in steps.carry_out(services, todo, "bench", batch_size=BATCH))


class Queries(monitoring.CommandListener):
    """What is sent to MongoDB while it is registered."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any]] = []

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        self.sent.append((event.command_name, event.command))

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None: ...

    def failed(self, event: monitoring.CommandFailedEvent) -> None: ...


def tick(services: Services, documents: int) -> int:
    """1,000 customers, 3 with work among `documents`: customers that the run's commands name."""
    everybody = [f"customer-{n:04}" for n in range(1000)]
    busy = everybody[::400]
    began = time.perf_counter()
    for customer in everybody:
        seed(services, [customer], documents // 1000, clean_image="https://cdn.example.com/clean.jpg")
    seed(services, busy, BATCH)
    create_indexes(services.documents)  # after the documents: that is quicker
    print(f"{documents:,} documents inserted in {time.perf_counter() - began:.0f} s")
    began = time.perf_counter()
    found = due(services)
    asked = time.perf_counter() - began
    assert found.scheduled
    queries = Queries()
    monitoring.register(queries)  # every client made from here on
    with closing(Services(services.settings)) as listening:
        began = time.perf_counter()
        figures = list(steps.carry_out(listening, steps.plan(listening, scheduled=True), "tick", batch_size=BATCH))
        worked = time.perf_counter() - began
    named = {c for c in everybody if any(f"'{c}'" in repr(command) for _, command in queries.sent)}
    print(f"the sensor's question took {asked * 1000:.0f} ms, the round {worked * 1000:.0f} ms")
    print(f"commands of the round: {sorted({name for name, _ in queries.sent})}, {len(queries.sent)} in all")
    print(f"marked: {sorted((f.customer_id, f.marked) for f in figures)}")
    return len(named)


def memory(services: Services, documents: int) -> float:
    """Resident megabytes at the most of a process that marks `documents` of one customer in one go."""
    seed(services, ["big"], documents)
    create_indexes(services.documents)
    environment = {**os.environ, **services.settings.environment()}
    command = [sys.executable, __file__, "--memory-child"]
    answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    print(answer.stdout.strip())
    return float(answer.stdout.split()[-2])


def mark_everything() -> None:
    from imgpipe_orchestration.settings import load

    with closing(Services(load())) as services:
        began = time.perf_counter()
        todo = steps.plan(services, scheduled=True)
        (figures,) = steps.carry_out(services, todo, "bench", batch_size=None)
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{figures.marked:,} documents in {seconds:.0f} s ({figures.marked / seconds:,.0f}/s), at most {peak:.0f} MB")


if __name__ == "__main__":
    main()
