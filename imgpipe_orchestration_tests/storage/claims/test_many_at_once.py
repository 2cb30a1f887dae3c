"""Many claimers, in threads and processes, and a database that goes away under them."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    LeaseLost,
    PartnerUnavailable,
)
from imgpipe_orchestration.storage import claims_sql, history
from imgpipe_orchestration.storage.claims import Claim, Claims, Item
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.storage.rows import connect, transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.parts import ensure_database, running
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, fail, finish, ids, put, row, time_passes


def test_eight_claimers_work_off_a_queue_with_no_item_twice_and_none_missed(postgres_url: str) -> None:
    engine = connect(postgres_url, pool_size=16)
    claims = Claims(engine)
    put(claims, *range(600))
    taken: list[int] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        misses = 0
        while misses < 3:
            batch = claims.claim(QUEUE, name, 13)
            misses = 0 if batch else misses + 1
            for claim in batch:
                finish(claims, claim)
            with lock:
                taken.extend(ids(batch))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [f"run-{n}" for n in range(8)]))
    assert sorted(taken) == list(range(600))
    assert claims.counts()["listings"].done == 600
    engine.dispose()


def test_everything_at_once_neither_deadlocks_nor_loses_an_item(postgres_url: str) -> None:
    """Enqueue, claim, fail, finish, heartbeat, release, requeue and purge against each other; then the rest is worked
    off and each item is found done exactly once."""
    engine = connect(postgres_url, pool_size=24)
    claims = Claims(engine, lease_seconds=0.5)
    done: Counter[int] = Counter()
    lock = threading.Lock()
    stop = time.monotonic() + 2

    def enqueue(seed: int) -> None:
        n = seed * 100_000
        while time.monotonic() < stop or n < seed * 100_000 + 105:
            with transaction(engine) as connection:
                batch = [Item(n + i, f"tenant-{(n + i) % 5}", f"day-{i % 2}") for i in range(7)]
                claims.enqueue(connection, QUEUE, list(reversed(batch)) if seed else batch)
            n += 7
            time.sleep(0.01)

    def work(name: str, until: float) -> None:
        turn = 0
        while time.monotonic() < until:
            turn += 1
            for claim in claims.claim(QUEUE, name, 10, partition=f"day-{turn % 2}"):
                try:
                    if claim.item_id % 11 == 0 and claim.attempt == 1:
                        fail(claims, claim, BadImage("odd"))
                    elif claim.item_id % 7 == 0 and claim.attempt == 1:
                        fail(claims, claim, PartnerUnavailable("away", retry_after=0))
                    elif claim.item_id % 31 == 0 and claim.attempt == 1:
                        pass  # forgotten: its lease runs out
                    else:
                        finish(claims, claim)
                        with lock:
                            done[claim.item_id] += 1
                except LeaseLost:
                    pass

    def disturb() -> None:
        while time.monotonic() < stop:
            with transaction(engine) as connection:
                connection.execute(claims_sql.HEARTBEAT, {"owner": "run-1", "lease": 0.5})
            claims.requeue(QUEUE)
            claims.release("run-2")
            history.purge(engine, 1, 400)
            claims.counts()
            time.sleep(0.01)

    with ThreadPoolExecutor(7) as pool:
        jobs = [pool.submit(enqueue, 0), pool.submit(enqueue, 1), pool.submit(disturb)]
        jobs += [pool.submit(work, f"run-{n}", stop) for n in range(4)]
    for job in jobs:
        job.result()

    def all_done() -> bool:
        time_passes(claims, 1000)
        claims.requeue(QUEUE)
        work("last", time.monotonic() + 0.2)
        counts = claims.counts()["listings"]
        return counts.waiting + counts.claimed + counts.failed == 0

    wait_for(all_done, "every item to be done")
    with transaction(engine) as connection:
        known = set(connection.scalars(text("select item_id from work_items")))
    assert len(known) > 100
    assert set(done) == known
    assert set(done.values()) == {1}
    engine.dispose()


_WORKER = """
    import sys, time
    from imgpipe_orchestration.storage.claims import Claims, Queue
    from imgpipe_orchestration.storage.rows import connect
    from imgpipe_orchestration.errors import LeaseLost

    url, owner, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    claims, queue = Claims(connect(url), lease_seconds=6), Queue("listings")
    with claims.hold(owner):
        batch = claims.claim(queue, owner, limit)
        print("holds", *[c.item_id for c in batch], flush=True)
        for line in sys.stdin:
            try:
                with claims.fenced(batch[0]) as connection:
                    claims.finish(connection, queue, batch[0])
                print("finished", flush=True)
            except LeaseLost:
                print("lost", flush=True)
"""


@contextmanager
def worker(url: str, owner: str, limit: int) -> Iterator[subprocess.Popen[str]]:
    """A process that claims up to `limit` items, keeps their leases, and finishes the first on a line of input."""
    command = [sys.executable, "-c", textwrap.dedent(_WORKER), url, owner, str(limit)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def says(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_worker_killed_with_9_costs_one_lease_and_no_item(claims: Claims, postgres_url: str) -> None:
    put(claims, 1, 2, 3)
    with worker(postgres_url, "victim", 3) as victim:
        assert says(victim) == "holds 1 2 3"
        leased_until = row(claims, 1).due_at
        wait_for(lambda: row(claims, 1).due_at > leased_until, "a heartbeat")
        assert claims.claim(QUEUE, "heir", 3) == []
        victim.kill()
        victim.wait()
        taken: list[int] = []
        wait_for(lambda: taken.extend(ids(claims.claim(QUEUE, "heir", 3))) or len(taken) == 3, "the lease to end")
    assert sorted(ids(claims.owned(QUEUE, "heir"))) == [1, 2, 3]


def test_a_worker_that_was_frozen_wakes_up_without_its_lease(claims: Claims, postgres_url: str) -> None:
    put(claims, 1)
    with worker(postgres_url, "frozen", 1) as frozen:
        assert says(frozen) == "holds 1"
        os.kill(frozen.pid, signal.SIGSTOP)
        batch: list[Claim] = []
        wait_for(lambda: batch.extend(claims.claim(QUEUE, "heir", 1)) or batch, "the lease to end")
        os.kill(frozen.pid, signal.SIGCONT)
        assert frozen.stdin is not None
        print(file=frozen.stdin, flush=True)
        assert says(frozen) == "lost"
    finish(claims, batch[0])


@pytest.mark.timeout(400)
def test_a_database_that_goes_away_and_comes_back_costs_nothing(open_folder: Path) -> None:
    with running(Postgres(open_folder / "data", free_port())) as server:
        engine = connect(ensure_database(server, "work"))
        upgrade(engine)
        claims = Claims(engine, lease_seconds=10)
        put(claims, 1, 2)
        first, second = claims.claim(QUEUE, "run", 2)
        with claims.hold("run"):
            with pytest.raises(BackendUnavailable), claims.fenced(first) as connection:
                mine = connection.scalar(text("select pg_backend_pid()"))
                server.kill()
                # The process that serves a connection ends a moment after its server, and may answer once more.
                wait_for(lambda: not psutil.pid_exists(mine), "the connection's process to end")
                claims.finish(connection, QUEUE, first)
            for call in (claims.counts, lambda: claims.claim(QUEUE, "x", 1), lambda: claims.due_partitions(QUEUE)):
                with pytest.raises(BackendUnavailable):
                    call()
            server.start()
            server.wait_until_ready()
            finish(claims, first)
            leased_until = row(claims, 2).due_at
            wait_for(lambda: row(claims, 2).due_at > leased_until, "the heart to have found the database again")
            assert claims.claim(QUEUE, "other", 2) == []
            finish(claims, second)
        assert claims.counts()["listings"].done == 2
        engine.dispose()
