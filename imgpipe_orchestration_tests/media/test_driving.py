"""How much of a queue one run takes on."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from imgpipe_orchestration.media import driving, store
from imgpipe_orchestration.media.driving import drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Claim, Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Outcome, work_through


def test_draining_a_queue_ends_with_the_time_budget_of_the_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "RUN_SECONDS", 0.5)
    services = Services(settings)
    claims = services.claims

    def work(services: Services, claim: Claim) -> None:
        time.sleep(0.1)
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, store.REMAKE_VARIANTS, claim)

    try:
        with transaction(services.engine) as connection:
            claims.enqueue(connection, store.REMAKE_VARIANTS, [Item(number) for number in range(200)])
        outcome, _ = drain(services, "run-1", store.REMAKE_VARIANTS, work)
        assert outcome.done
        assert len(outcome.left) == 200 - len(outcome.done) > 0
        claims.release("run-1")
        assert claims.due_partitions(store.REMAKE_VARIANTS) == [""], "a later run makes the rest"
    finally:
        services.close()


def test_a_batch_begun_near_the_end_of_the_budget_gets_no_budget_of_its_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: set[float] = set()

    def noting(*args: object, deadline: float, **options: object) -> Outcome:
        deadlines.add(deadline)
        return work_through(*args, deadline=deadline, **options)  # type: ignore[arg-type]

    def work(services: Services, claim: Claim) -> None:
        with services.claims.fenced(claim) as connection:
            services.claims.finish(connection, store.REMAKE_VARIANTS, claim)

    monkeypatch.setattr(driving, "BATCH", 10)
    monkeypatch.setattr(driving, "work_through", noting)
    with closing(Services(settings)) as services:
        with transaction(services.engine) as connection:
            services.claims.enqueue(connection, store.REMAKE_VARIANTS, [Item(number) for number in range(30)])
        outcome, _ = drain(services, "run-1", store.REMAKE_VARIANTS, work)
    assert len(outcome.done) == 30
    assert len(deadlines) == 1
