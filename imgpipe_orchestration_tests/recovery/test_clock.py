"""A machine whose clock is an hour wrong: leases and turns go by the database's clock."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.lacking import lacking
from imgpipe_orchestration_tests.recovery.conftest import attempts_by_outcome, count

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
"""Debian's package libfaketime."""
pytestmark = pytest.mark.slow

QUEUE = Queue("drill", max_attempts=2)
ITEMS = 120

WORKER = """
import select, sys, time
from sqlalchemy import text
from imgpipe_orchestration.storage.claims import Claims, Queue
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration.storage.work import work_through

url, owner = sys.argv[1:]
queue, claims = Queue("drill", max_attempts=2), Claims(connect(url), lease_seconds=10.0)

def step(claim):
    select.select([], [], [], 0.1)  # libfaketime breaks time.sleep, not the product
    with claims.fenced(claim) as connection:
        values = {"item": claim.item_id, "owner": owner, "clock": time.time()}
        connection.execute(text("insert into made values (:item, :owner, :clock)"), values)
        claims.finish(connection, queue, claim)

with claims.hold(owner):
    print("ready", flush=True)
    sys.stdin.readline()
    while batch := claims.claim(queue, owner, 20):
        work_through(claims, queue, batch, step, threads=2)
"""


def test_a_workers_clock_that_jumps_costs_nothing(settings: Settings, tmp_path: Path) -> None:
    if not FAKETIME.exists():
        lacking("libfaketime", "make test-servers")
    services = Services(settings)
    with transaction(services.engine) as connection:
        connection.execute(text("create table made (item bigint, owner text, clock double precision)"))
        services.claims.enqueue(connection, QUEUE, [Item(number) for number in range(ITEMS)])
    clock = tmp_path / "clock"
    clock.write_text("+0")
    jumping = {
        **os.environ,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # no clock that is set moves this one
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, settings.database_url, owner],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for owner, environ in (("jumping", jumping), ("steady", dict(os.environ)))
    ]
    jumps = 0
    try:
        for worker in workers:
            assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
        for worker in workers:
            print(file=worker.stdin, flush=True)
        while any(worker.poll() is None for worker in workers):
            time.sleep(0.5)
            jumps += 1
            clock.write_text("+3600" if jumps % 2 else "-3600")
        assert [worker.wait(60) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert count(services, "select count(*) from made") == ITEMS
    assert count(services, "select count(distinct item) from made") == ITEMS
    assert attempts_by_outcome(services) == {"done": ITEMS}
    jumped = "select count(*) from made where owner = 'jumping' and abs(clock - extract(epoch from now())) > 3000"
    assert count(services, jumped) > 10
    assert count(services, "select count(*) from work_items where updated_at > now() + interval '1 minute'") == 0
    services.close()
