"""PostgreSQL restarted again and again during a batch: nothing lost, nothing twice, no attempt spent."""

import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.storage.claims import Claim, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import work_through
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.parts import stop
from imgpipe_orchestration_tests.recovery.conftest import attempts_by_outcome, count, servers

pytestmark = pytest.mark.slow

QUEUE = Queue("drill", max_attempts=2)
ITEMS = 400
RESTARTS = 20


def test_twenty_restarts_during_a_batch_cost_time_only(open_folder: Path) -> None:
    with servers(open_folder) as (rows, _, settings):
        services = Services(settings)
        with transaction(services.engine) as connection:
            connection.execute(text("create table made (item bigint not null)"))
            services.claims.enqueue(connection, QUEUE, [Item(number) for number in range(ITEMS)])
        over = threading.Event()
        restarts = 0

        def step(claim: Claim) -> None:
            time.sleep(0.1)
            with services.claims.fenced(claim) as connection:
                connection.execute(text("insert into made values (:item)"), {"item": claim.item_id})
                services.claims.finish(connection, QUEUE, claim)

        def work() -> None:
            number = 0
            while not over.is_set():
                number += 1
                try:
                    with services.claims.hold(f"run-{number}"):
                        batch = services.claims.claim(QUEUE, f"run-{number}", 40)
                        work_through(services.claims, QUEUE, batch, step, threads=4)
                    services.claims.release(f"run-{number}")
                except BackendUnavailable:
                    pass  # as a run that fails; the next tick asks for another
                if not batch_left():
                    return
                time.sleep(0.05)

        def batch_left() -> bool:
            try:
                return count(services, "select count(*) from work_items where state <> 'done'") > 0
            except BackendUnavailable:
                return True

        worker = threading.Thread(target=work)
        worker.start()
        try:
            while restarts < RESTARTS:
                stop(rows)
                rows.start()
                rows.wait_until_ready()
                restarts += 1
                time.sleep(0.2)
            worker.join(120)
            assert not worker.is_alive()
        finally:
            over.set()
            worker.join()
        assert count(services, "select count(*) from made") == ITEMS
        assert count(services, "select count(distinct item) from made") == ITEMS
        assert services.claims.counts()["drill"].failed == 0
        outcomes = attempts_by_outcome(services)
        assert outcomes.pop("done") == ITEMS
        assert set(outcomes) <= {"retry", "lost"}
        services.close()
