"""The promises of the queues: each item to one worker at a time, none lost, none twice, each tenant in turn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, TextClause, text

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    ImgpipeError,
    LeaseLost,
    PartnerUnavailable,
    RateLimited,
    SpendingPaused,
)
from imgpipe_orchestration.storage import claims_sql
from imgpipe_orchestration.storage.claims import MAX_LOSSES, Claim, Claims, Item, Queue, State
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.storage.pauses import BACKOFF_LIMIT_SECONDS, PAUSE_LIMIT_SECONDS, PAUSE_SECONDS, backoff
from imgpipe_orchestration.storage.rows import connect, transaction

QUEUE = Queue("listings", max_attempts=3)


# --- words the tests are written in --------------------------------------------------------------------------------


def put(
    claims: Claims, *ids: int, tenant: str = "", partition: str = "", delay: float = 0, queue: Queue = QUEUE
) -> int:
    with transaction(claims.engine) as connection:
        return claims.enqueue(connection, queue, [Item(n, tenant, partition) for n in ids], delay=delay)


def finish(claims: Claims, claim: Claim, queue: Queue = QUEUE) -> None:
    with claims.fenced(claim) as connection:
        claims.finish(connection, queue, claim)


def fail(claims: Claims, claim: Claim, error: ImgpipeError, queue: Queue = QUEUE) -> State:
    with claims.fenced(claim) as connection:
        return claims.failed(connection, queue, claim, error)


def row(claims: Claims, item_id: int) -> Any:
    with transaction(claims.engine) as connection:
        due_in = "extract(epoch from due_at - now())::float8 as due_in"
        query = text(f"select *, {due_in} from work_items where item_id = :id")
        return connection.execute(query, {"id": item_id}).one()


def time_passes(claims: Claims, seconds: float = 100_000) -> None:
    """Every moment in the table comes `seconds` earlier: what was to happen by then is due."""
    with transaction(claims.engine) as connection:
        earlier = text("update work_items set due_at = due_at - make_interval(secs => :s) where due_at is not null")
        connection.execute(earlier, {"s": seconds})


def ids(batch: Sequence[Claim]) -> list[int]:
    return [claim.item_id for claim in batch]


def wait_until(condition: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- putting in ----------------------------------------------------------------------------------------------------


def test_an_item_is_enqueued_once(claims: Claims) -> None:
    assert put(claims, 1, 2, 2) == 2
    assert put(claims, 2, 3) == 1
    assert ids(claims.claim(QUEUE, "run", 10)) == [1, 2, 3]


def test_an_item_exists_only_if_the_transaction_that_enqueued_it_commits(claims: Claims, engine: Engine) -> None:
    with engine.connect() as connection:
        claims.enqueue(connection, QUEUE, [Item(1)])
        assert claims.claim(QUEUE, "run", 10) == []
        connection.rollback()
    assert claims.claim(QUEUE, "run", 10) == []


def test_a_delayed_item_waits_for_its_moment(claims: Claims) -> None:
    put(claims, 1, delay=60)
    assert claims.due_partitions(QUEUE) == []
    assert claims.claim(QUEUE, "run", 10) == []
    time_passes(claims, 61)
    assert claims.due_partitions(QUEUE) == [""]
    assert ids(claims.claim(QUEUE, "run", 10)) == [1]


def test_what_has_ended_starts_anew_when_it_is_enqueued_again(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    first, second, third = claims.claim(QUEUE, "run", 3)
    finish(claims, first)
    fail(claims, second, BadImage("cut off"))
    with transaction(claims.engine) as connection:
        assert claims.enqueue(connection, QUEUE, [Item(n, "t", "day") for n in (1, 2, 3, 4)], again=True) == 3
    assert sorted(ids(claims.claim(QUEUE, "other", 9, partition="day"))) == [1, 2, 4]
    assert row(claims, 3).owner == "run"
    assert (row(claims, 2).failures, row(claims, 2).error) == (0, None)
    finish(claims, third)


def test_enqueueing_a_known_item_costs_its_tenant_no_turn(claims: Claims) -> None:
    put(claims, 1, tenant="eager")
    for _ in range(50):
        put(claims, 1, tenant="eager")
    put(claims, *range(100, 110), tenant="other")
    put(claims, 2, tenant="eager")
    assert 2 in ids(claims.claim(QUEUE, "run", 5))


# --- claiming ------------------------------------------------------------------------------------------------------


def test_claims_come_in_turn_and_never_twice(claims: Claims) -> None:
    put(claims, *range(1, 8))
    assert ids(claims.claim(QUEUE, "a", 3)) == [1, 2, 3]
    assert ids(claims.claim(QUEUE, "b", 3)) == [4, 5, 6]
    assert ids(claims.claim(QUEUE, "a", 3)) == [7]
    assert claims.claim(QUEUE, "b", 3) == []
    assert ids(claims.owned(QUEUE, "a")) == [1, 2, 3, 7]


def test_a_claim_takes_from_one_partition_of_one_queue(claims: Claims) -> None:
    put(claims, 1, partition="2026-01-01")
    put(claims, 2, partition="2026-01-02")
    put(claims, 1, queue=Queue("avatars"))
    assert claims.due_partitions(QUEUE) == ["2026-01-01", "2026-01-02"]
    assert claims.due_partitions(QUEUE, limit=1) == ["2026-01-01"]
    assert ids(claims.claim(QUEUE, "run", 10, partition="2026-01-02")) == [2]
    assert claims.due_partitions(QUEUE) == ["2026-01-01"]
    assert claims.claim(QUEUE, "run", 10) == []
    assert claims.claim(QUEUE, "run", 0, partition="2026-01-01") == []


def test_a_partition_that_only_pauses_or_is_being_worked_on_is_not_due(claims: Claims) -> None:
    put(claims, 1, partition="claimed")
    put(claims, 2, partition="paused")
    claims.claim(QUEUE, "run", 1, partition="claimed")
    fail(claims, claims.claim(QUEUE, "run", 1, partition="paused")[0], PartnerUnavailable("away"))
    assert claims.due_partitions(QUEUE) == []
    time_passes(claims)
    assert claims.due_partitions(QUEUE) == ["claimed", "paused"]


def test_no_more_failed_items_are_taken_than_asked_for(claims: Claims) -> None:
    put(claims, *range(1, 7))
    for claim in claims.claim(QUEUE, "run", 6):
        fail(claims, claim, PartnerUnavailable("away"))
    time_passes(claims)
    put(claims, *range(11, 17))
    batch = claims.claim(QUEUE, "run", 6, retries=2)
    assert Counter(claim.failures for claim in batch) == {1: 2, 0: 4}
    assert len(claims.claim(QUEUE, "run", 6, retries=0)) == 2
    assert len(claims.claim(QUEUE, "run", 6)) == 4


def test_without_a_bound_retries_take_half_of_a_batch_and_what_new_items_leave(claims: Claims) -> None:
    put(claims, *range(1, 21))
    for claim in claims.claim(QUEUE, "run", 20):
        fail(claims, claim, PartnerUnavailable("away"))
    time_passes(claims)
    put(claims, *range(101, 108))
    assert Counter(claim.failures for claim in claims.claim(QUEUE, "run", 10)) == {1: 5, 0: 5}
    assert Counter(claim.failures for claim in claims.claim(QUEUE, "run", 10)) == {1: 8, 0: 2}


# --- fairness ------------------------------------------------------------------------------------------------------


def test_a_flood_does_not_starve_one_who_comes_later(claims: Claims) -> None:
    put(claims, *range(1000), tenant="flood")
    claims.claim(QUEUE, "run", 100)
    put(claims, 5000, 5001, tenant="late")
    assert {5000, 5001} <= set(ids(claims.claim(QUEUE, "run", 10)))


def test_tenants_take_turns_however_much_each_has_waiting(claims: Claims) -> None:
    put(claims, *range(100), tenant="a")
    put(claims, *range(1000, 1010), tenant="b")
    put(claims, *range(2000, 2005), tenant="c")
    batch = claims.claim(QUEUE, "run", 15)
    assert Counter(claim.tenant for claim in batch) == {"a": 5, "b": 5, "c": 5}
    assert Counter(claim.tenant for claim in claims.claim(QUEUE, "run", 10)) == {"a": 5, "b": 5}


def test_an_idle_tenant_saves_up_no_turns(claims: Claims) -> None:
    put(claims, *range(200), tenant="busy")
    claims.claim(QUEUE, "run", 100)
    put(claims, *range(1000, 1100), tenant="back from holiday")
    assert Counter(claim.tenant for claim in claims.claim(QUEUE, "run", 20)) == {"busy": 10, "back from holiday": 10}


def test_a_flood_in_one_partition_costs_nothing_in_another(claims: Claims) -> None:
    put(claims, *range(1000), tenant="flood", partition="monday")
    claims.claim(QUEUE, "run", 900, partition="monday")
    put(claims, *range(2000, 2050), tenant="flood", partition="tuesday")
    put(claims, 3000, tenant="late", partition="tuesday")
    assert 3000 in ids(claims.claim(QUEUE, "run", 2, partition="tuesday"))


def test_a_flood_of_retries_starves_neither_new_items_nor_the_retry_of_another(claims: Claims) -> None:
    put(claims, *range(300), tenant="flood")
    put(claims, 1000, tenant="other")
    for claim in claims.claim(QUEUE, "run", 301):
        fail(claims, claim, PartnerUnavailable("away"))
    time_passes(claims)
    put(claims, 2000, tenant="new")
    batch = ids(claims.claim(QUEUE, "run", 40))
    assert {1000, 2000} <= set(batch)


def test_a_flood_that_paused_comes_back_in_turn_with_the_others(claims: Claims) -> None:
    put(claims, *range(300), tenant="flood")
    for claim in claims.claim(QUEUE, "run", 300):
        fail(claims, claim, SpendingPaused("quota used up", retry_after=3600))
    time_passes(claims)
    put(claims, *range(1000, 1010), tenant="other")
    assert Counter(c.tenant for c in claims.claim(QUEUE, "run", 20)) == {"flood": 10, "other": 10}


def test_a_requeued_flood_takes_its_turns(claims: Claims) -> None:
    put(claims, *range(200), tenant="flood")
    for claim in claims.claim(QUEUE, "run", 200):
        fail(claims, claim, BadImage("cut off"))
    assert len(claims.requeue(QUEUE)) == 200
    put(claims, *range(1000, 1010), tenant="other")
    assert Counter(c.tenant for c in claims.claim(QUEUE, "run", 20)) == {"flood": 10, "other": 10}


# --- leases and fences ---------------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_lets_another_take_over_and_fences_the_first(claims: Claims) -> None:
    put(claims, 1)
    (old,) = claims.claim(QUEUE, "slow", 1)
    time_passes(claims, 31)
    (new,) = claims.claim(QUEUE, "quick", 1)
    assert (new.attempt, new.losses) == (2, 1)
    for write in (finish, lambda c, claim: fail(c, claim, BadImage("late"))):
        with pytest.raises(LeaseLost):
            write(claims, old)
    finish(claims, new)
    outcomes = [(a.owner, a.outcome) for a in claims.history(QUEUE, 1)]
    assert outcomes == [("slow", "lost"), ("quick", "done")]


def test_an_owner_that_claims_its_own_lost_item_again_is_fenced_by_the_attempt(claims: Claims) -> None:
    put(claims, 1)
    (old,) = claims.claim(QUEUE, "run", 1)
    time_passes(claims, 31)
    (new,) = claims.claim(QUEUE, "run", 1)
    with pytest.raises(LeaseLost):
        finish(claims, old)
    finish(claims, new)


def test_what_is_written_inside_a_fence_is_undone_when_the_lease_is_lost(claims: Claims, engine: Engine) -> None:
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    with transaction(engine) as connection:
        connection.execute(text("create table written (n int)"))
    claims.release("run")
    with pytest.raises(LeaseLost), transaction(engine) as connection:
        connection.execute(text("insert into written values (1)"))
        claims.finish(connection, QUEUE, claim)
    with pytest.raises(LeaseLost), claims.fenced(claim):
        pytest.fail("entered a fence without a lease")
    with transaction(engine) as connection:
        assert connection.scalar(text("select count(*) from written")) == 0


def test_nobody_takes_over_while_a_step_writes(claims: Claims) -> None:
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    time_passes(claims, 31)
    with claims.fenced(claim) as connection:
        assert claims.claim(QUEUE, "other", 1) == []
        claims.finish(connection, QUEUE, claim)
    assert row(claims, 1).state == "done"


def test_a_heartbeat_keeps_every_lease_while_the_work_lasts(engine: Engine) -> None:
    claims = Claims(engine, lease_seconds=0.6)
    put(claims, 1, 2)
    batch = claims.claim(QUEUE, "run", 2)
    with claims.hold("run"):
        for _ in range(20):
            time.sleep(0.1)
            assert claims.claim(QUEUE, "other", 2) == []
        for claim in batch:
            finish(claims, claim)


def test_a_step_that_writes_for_long_does_not_hold_up_the_other_leases(engine: Engine) -> None:
    claims = Claims(engine, lease_seconds=0.9)
    put(claims, 1, 2)
    first, second = claims.claim(QUEUE, "run", 2)
    with claims.hold("run"), claims.fenced(first) as connection:
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            assert claims.claim(QUEUE, "other", 2) == []
            time.sleep(0.1)
        with claims.fenced(second) as other:
            claims.finish(other, QUEUE, second)
        claims.finish(connection, QUEUE, first)


def test_a_pool_emptied_by_busy_steps_does_not_stop_the_heart(postgres_url: str) -> None:
    engine = connect(postgres_url, pool_size=1)
    claims, other = Claims(engine, lease_seconds=0.9), Claims(connect(postgres_url), lease_seconds=30)
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    with claims.hold("run"), engine.connect():
        for _ in range(15):
            assert other.claim(QUEUE, "other", 1) == []
            time.sleep(0.1)
    finish(claims, claim)
    engine.dispose()
    other.engine.dispose()


def test_progress_gives_the_next_step_its_attempts_and_its_lease(claims: Claims) -> None:
    put(claims, 1)
    for _ in range(2):
        (claim,) = claims.claim(QUEUE, "run", 1)
        fail(claims, claim, PartnerUnavailable("away"))
        time_passes(claims)
    (claim,) = claims.claim(QUEUE, "run", 1)
    assert claim.failures == 2
    time_passes(claims, 25)
    with claims.fenced(claim) as connection:
        claims.progress(connection, claim)
    assert row(claims, 1).due_in > 20
    assert fail(claims, claim, PartnerUnavailable("next step")) is State.WAITING


def test_leases_follow_the_database_clock_whatever_the_time_zone_of_the_session(postgres_url: str) -> None:
    far = connect(postgres_url + "?options=-c%20timezone%3DPacific/Kiritimati")
    near = connect(postgres_url)
    put(Claims(near), 1)
    (claim,) = Claims(far, lease_seconds=30).claim(QUEUE, "far", 1)
    assert 25 < row(Claims(near), 1).due_in <= 30
    assert Claims(near).claim(QUEUE, "near", 1) == []
    finish(Claims(near), claim)
    far.dispose()
    near.dispose()


# --- failing -------------------------------------------------------------------------------------------------------


def test_a_permanent_error_gives_up_at_once(claims: Claims) -> None:
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    assert fail(claims, claim, BadImage("cut off")) is State.FAILED
    time_passes(claims)
    assert claims.claim(QUEUE, "run", 1) == []
    assert (row(claims, 1).error, row(claims, 1).error_code) == ("cut off", "bad-image")


def test_a_retryable_error_gives_up_when_the_attempts_are_spent(claims: Claims) -> None:
    put(claims, 1)
    states = []
    for _ in range(QUEUE.max_attempts):
        (claim,) = claims.claim(QUEUE, "run", 1)
        states.append(fail(claims, claim, PartnerUnavailable("away")))
        assert claims.claim(QUEUE, "run", 1) == []
        time_passes(claims)
    assert states == [State.WAITING, State.WAITING, State.FAILED]


@pytest.mark.parametrize("error", [SpendingPaused("no budget"), BackendUnavailable("no store")])
def test_what_is_not_the_items_fault_never_gives_up(claims: Claims, error: ImgpipeError) -> None:
    put(claims, 1)
    for _ in range(3 * QUEUE.max_attempts):
        (claim,) = claims.claim(QUEUE, "run", 1)
        assert fail(claims, claim, error) is State.WAITING
        assert row(claims, 1).due_in == pytest.approx(PAUSE_SECONDS, abs=2)
        time_passes(claims)
    assert row(claims, 1).failures == 0


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        (120, 119, 121),
        (-5, 0, 11),
        (0, 0, 11),
        (float("nan"), 0, 11),
        (1e18, PAUSE_LIMIT_SECONDS - 2, PAUSE_LIMIT_SECONDS + 1),
        (float("inf"), PAUSE_LIMIT_SECONDS - 2, PAUSE_LIMIT_SECONDS + 1),
    ],
)
def test_a_pause_follows_retry_after_within_reason(claims: Claims, asked: float, least: float, most: float) -> None:
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    fail(claims, claim, RateLimited("slow down", retry_after=asked))
    assert least <= row(claims, 1).due_in <= most


def test_pauses_double_with_jitter_up_to_a_limit() -> None:
    for failures in range(12):
        pauses = [backoff(failures) for _ in range(50)]
        full = min(5 * 2**failures, BACKOFF_LIMIT_SECONDS)
        assert full / 2 <= min(pauses) < max(pauses) <= full
    assert backoff(100_000) <= BACKOFF_LIMIT_SECONDS


def test_an_error_that_postgres_cannot_hold_is_recorded_without_what_it_cannot_hold(claims: Claims) -> None:
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    fail(claims, claim, BadImage("bad name: a\0b\udcff " + "x" * 10_000))
    assert row(claims, 1).error.startswith("bad name: ab? xxx")
    assert len(row(claims, 1).error) == 2000


# --- losses --------------------------------------------------------------------------------------------------------


def test_an_item_that_kills_its_worker_is_given_up_and_takes_nobody_with_it(claims: Claims) -> None:
    """Each round claims a batch and dies if the killer is in it; everything else is finished."""
    put(claims, *range(1, 65))
    killer, runs = 7, 0
    while claims.due_partitions(QUEUE):
        runs += 1
        assert runs < 60
        batch = claims.claim(QUEUE, f"run-{runs}", 64)
        if killer in ids(batch):
            time_passes(claims, 31)
        else:
            for claim in batch:
                finish(claims, claim)
    counts = claims.counts()["listings"]
    assert (counts.done, counts.failed) == (63, 1)
    (letter,) = claims.failures(QUEUE)
    assert (letter.item_id, letter.error_code) == (killer, "worker-died")
    assert "died" in (letter.error or "")
    assert [a.outcome for a in claims.history(QUEUE, killer)] == ["lost"] * (MAX_LOSSES + 1) + ["failed"]


def test_new_items_do_not_wait_behind_suspects_that_are_given_up(claims: Claims, engine: Engine) -> None:
    put(claims, 1, 2)
    claims.claim(QUEUE, "run", 2)
    with transaction(engine) as connection:
        connection.execute(text("update work_items set losses = :n"), {"n": MAX_LOSSES})
    time_passes(claims)
    put(claims, 3)
    assert ids(claims.claim(QUEUE, "run", 10)) == [3]
    assert claims.counts()["listings"].failed == 2


def test_a_feature_that_cannot_write_a_failure_down_does_not_close_the_queue(claims: Claims, engine: Engine) -> None:
    def mirror(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
        connection.execute(text("select no_such_function()"))

    queue = Queue("fragile", mirror=mirror)
    put(claims, 1, queue=queue)
    claims.claim(queue, "run", 1)
    with transaction(engine) as connection:
        connection.execute(text("update work_items set losses = :n"), {"n": MAX_LOSSES})
    time_passes(claims)
    put(claims, 2, queue=queue)
    assert ids(claims.claim(queue, "run", 10)) == [2]
    assert row(claims, 1).state == "claimed"


def test_whoever_has_no_room_gets_no_suspect_either(claims: Claims) -> None:
    put(claims, 1)
    claims.claim(QUEUE, "dies", 1)
    time_passes(claims)
    assert claims.claim(QUEUE, "full", 0) == []
    assert ids(claims.claim(QUEUE, "free", 1)) == [1]


def test_a_success_forgets_the_losses(claims: Claims) -> None:
    put(claims, 1)
    claims.claim(QUEUE, "dies", 1)
    time_passes(claims)
    (claim,) = claims.claim(QUEUE, "lives", 1)
    with claims.fenced(claim) as connection:
        claims.progress(connection, claim)
    claims.release("lives")
    assert claims.claim(QUEUE, "next", 1)[0].losses == 0


# --- giving back, requeueing, ignoring -----------------------------------------------------------------------------


def test_a_cancelled_run_gives_back_at_once_and_costs_no_attempt(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    first, *_ = claims.claim(QUEUE, "run", 3)
    assert claims.release("run") == 3
    assert claims.release("run") == 0
    with pytest.raises(LeaseLost):
        finish(claims, first)
    again = claims.claim(QUEUE, "next", 3)
    assert ids(again) == [1, 2, 3]
    assert {(c.failures, c.losses, c.attempt) for c in again} == {(0, 0, 2)}


def test_a_run_whose_process_died_gives_back_suspects(claims: Claims) -> None:
    put(claims, 1)
    claims.claim(QUEUE, "run", 1)
    assert claims.release("run", died=True) == 1
    assert claims.claim(QUEUE, "next", 1)[0].losses == 1
    assert [a.outcome for a in claims.history(QUEUE, 1)] == ["lost"]


def test_requeue_gives_failed_items_fresh_attempts_and_leaves_ignored_ones(claims: Claims) -> None:
    put(claims, 1, 2, 3, 4)
    for claim in claims.claim(QUEUE, "run", 3):
        fail(claims, claim, BadImage("cut off"))
    assert claims.ignore(QUEUE, [1, 4]) == [1]
    assert sorted(claims.requeue(QUEUE)) == [2, 3]
    assert claims.requeue(QUEUE) == []
    assert sorted(ids(claims.claim(QUEUE, "run", 9))) == [2, 3, 4]
    assert row(claims, 2).error is None
    assert claims.requeue(QUEUE, [1, 2]) == [1]
    assert ids(claims.claim(QUEUE, "run", 9)) == [1]


def test_a_withdrawn_item_is_lost_to_whoever_holds_it(claims: Claims) -> None:
    put(claims, 1, 2)
    (claim,) = claims.claim(QUEUE, "run", 1)
    with transaction(claims.engine) as connection:
        assert sorted(claims.withdraw(connection, QUEUE, [1, 2, 3], "no longer wanted")) == [1, 2]
    with pytest.raises(LeaseLost):
        finish(claims, claim)
    assert claims.claim(QUEUE, "run", 9) == []


def test_the_features_rows_follow_in_the_same_transaction(claims: Claims) -> None:
    seen: list[tuple[list[int], State, str | None]] = []

    def mirror(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
        # Inside the transaction the item has its new state already.
        states = connection.scalars(text("select state from work_items where item_id = any(:ids)"), {"ids": list(ids)})
        assert {State(s) for s in states} == {state}
        seen.append((list(ids), state, error))

    queue = Queue("mirrored", max_attempts=2, mirror=mirror)
    put(claims, 1, 2, queue=queue)
    first, second = claims.claim(queue, "run", 2)
    finish(claims, first, queue)
    fail(claims, second, PartnerUnavailable("away"), queue)
    time_passes(claims)
    (second,) = claims.claim(queue, "run", 1)
    fail(claims, second, PartnerUnavailable("still away"), queue)
    claims.ignore(queue, [2])
    claims.requeue(queue, [2])
    assert seen == [
        ([1], State.DONE, None),
        ([2], State.WAITING, "away"),
        ([2], State.FAILED, "still away"),
        ([2], State.IGNORED, None),
        ([2], State.WAITING, None),
    ]


# --- many at once --------------------------------------------------------------------------------------------------


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

    _in_threads([lambda n=n: work(f"run-{n}") for n in range(8)])
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
        while time.monotonic() < stop:
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
            claims.heartbeat("run-1")
            claims.requeue(QUEUE)
            claims.release("run-2")
            claims.purge(1)
            claims.counts()
            time.sleep(0.01)

    _in_threads(
        [lambda: enqueue(0), lambda: enqueue(1), disturb] + [lambda n=n: work(f"run-{n}", stop) for n in range(4)]
    )

    def all_done() -> bool:
        time_passes(claims, 1000)
        claims.requeue(QUEUE)
        work("last", time.monotonic() + 0.2)
        counts = claims.counts()["listings"]
        return counts.waiting + counts.claimed + counts.failed == 0

    wait_until(all_done, 60)
    with transaction(engine) as connection:
        known = set(connection.scalars(text("select item_id from work_items")))
    assert len(known) > 100
    assert set(done) == known
    assert set(done.values()) == {1}
    engine.dispose()


def _in_threads(jobs: list[Callable[[], None]]) -> None:
    """Run all at once; the first error is raised here."""
    errors: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# --- real processes ------------------------------------------------------------------------------------------------

_WORKER = """
    import sys, time
    from imgpipe_orchestration.storage.claims import Claims, Queue
    from imgpipe_orchestration.storage.rows import connect
    from imgpipe_orchestration.errors import LeaseLost

    url, owner, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
    claims, queue = Claims(connect(url), lease_seconds=1), Queue("listings")
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


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_a_worker_killed_with_9_costs_one_lease_and_no_item(claims: Claims, postgres_url: str) -> None:
    put(claims, 1, 2, 3)
    with worker(postgres_url, "victim", 3) as victim:
        assert says(victim) == "holds 1 2 3"
        time.sleep(1.2)  # longer than its lease: the heartbeat holds it
        assert claims.claim(QUEUE, "heir", 3) == []
        died = time.monotonic()
        victim.kill()
        victim.wait()
        taken: list[int] = []
        wait_until(lambda: taken.extend(ids(claims.claim(QUEUE, "heir", 3))) or len(taken) == 3)
        assert time.monotonic() - died < 3
    assert sorted(ids(claims.owned(QUEUE, "heir"))) == [1, 2, 3]


def test_a_worker_that_was_frozen_wakes_up_without_its_lease(claims: Claims, postgres_url: str) -> None:
    put(claims, 1)
    with worker(postgres_url, "frozen", 1) as frozen:
        assert says(frozen) == "holds 1"
        os.kill(frozen.pid, signal.SIGSTOP)
        batch: list[Claim] = []
        wait_until(lambda: batch.extend(claims.claim(QUEUE, "heir", 1)) or bool(batch))
        os.kill(frozen.pid, signal.SIGCONT)
        tell(frozen)
        assert says(frozen) == "lost"
    finish(claims, batch[0])


def test_two_processes_share_a_queue(claims: Claims, postgres_url: str) -> None:
    put(claims, *range(1, 41))
    with worker(postgres_url, "a", 25) as a, worker(postgres_url, "b", 25) as b:
        held = [int(n) for process in (a, b) for n in says(process).split()[1:]]
        assert sorted(held) == list(range(1, 41))
        for process in (a, b):
            tell(process)
            assert says(process) == "finished"
    assert claims.counts()["listings"].done == 2


# --- a database that goes away -------------------------------------------------------------------------------------


def test_a_database_that_goes_away_and_comes_back_costs_nothing(open_folder: Path) -> None:
    with Postgres(open_folder / "data", free_port()) as server:
        engine = connect(server.ensure_database("work"))
        upgrade(engine)
        claims = Claims(engine, lease_seconds=2)
        put(claims, 1, 2)
        first, second = claims.claim(QUEUE, "run", 2)
        with claims.hold("run"):
            with pytest.raises(BackendUnavailable), claims.fenced(first) as connection:
                server.kill()
                claims.finish(connection, QUEUE, first)
            for call in (claims.counts, lambda: claims.claim(QUEUE, "x", 1), lambda: claims.due_partitions(QUEUE)):
                with pytest.raises(BackendUnavailable):
                    call()
            server.start()
            server.wait_until_ready()
            finish(claims, first)
            time.sleep(2.5)  # the heart has found the database again
            assert claims.claim(QUEUE, "other", 2) == []
            finish(claims, second)
        assert claims.counts()["listings"].done == 2
        engine.dispose()


# --- plans ---------------------------------------------------------------------------------------------------------


def test_no_statement_reads_the_backlog_even_without_statistics(claims: Claims, engine: Engine) -> None:
    """A table that was analysed while it was all but empty, and then grew: the worst the planner can be told."""
    with transaction(engine) as connection:
        connection.execute(text("alter table work_items set (autovacuum_enabled = false)"))
    put(claims, 1)
    with transaction(engine) as connection:
        connection.execute(text("analyze work_items"))
    for tenant in range(10):
        put(claims, *range(1000 * tenant, 1000 * tenant + 1000), tenant=str(tenant), partition="day")
    put(claims, *range(20_000, 25_000), partition="day", delay=3600)
    for claim in claims.claim(QUEUE, "run", 200, partition="day"):
        if claim.item_id % 2:
            finish(claims, claim)

    key = {"queue": QUEUE.name, "partition": "day", "owner": "run", "lease": 30}
    held = {"queue": QUEUE.name, "item_id": 2000, "owner": "run", "attempt": 1}
    lost = {"error": "", "code": ""}
    statements: list[tuple[TextClause, dict[str, Any]]] = [
        (claims_sql.DUE_PARTITIONS, {"queue": QUEUE.name, "limit": 10}),
        (claims_sql.MAKE_READY, {**key, **lost, "limit": 1000}),
        (claims_sql.TAKE, {**key, "lane": 0, "limit": 10}),
        (claims_sql.TAKE_SUSPECTS, {**key, "limit": 10, "shrink": 4}),
        (
            claims_sql.ENQUEUE,
            {"queue": QUEUE.name, "ids": [1, 99_999], "tenants": ["", ""], "partitions": ["", ""], "traces": ["", ""]},
        ),
        (claims_sql.CHECK, held),
        (claims_sql.PROGRESS, {**held, "lease": 30}),
        (claims_sql.SETTLE, {**held, "state": "done", "error": None, "code": None, "spent": 0, "pause": 0}),
        (claims_sql.HEARTBEAT, key),
        (claims_sql.OWNED, key),
        (claims_sql.RELEASE, {**key, **lost, "lost": False}),
        (claims_sql.BURY, {"queue": QUEUE.name, "ids": [5], "old": ["failed"], "new": "waiting"}),
    ]
    for statement, values in statements:
        with engine.connect() as connection:
            connection.execute(claims_sql.INDEXES_ONLY)
            explained = connection.execute(text(f"explain (analyze, format json) {statement.text}"), values)
            rows = _most_rows(explained.scalar_one()[0]["Plan"])
            connection.rollback()
        assert rows <= 400, f"{rows} rows read by {statement.text}"


def _most_rows(plan: dict[str, Any]) -> float:
    """The most rows any node of a plan gave out or threw away."""
    thrown = sum(value for name, value in plan.items() if name.startswith("Rows Removed"))
    mine = (plan["Actual Rows"] + thrown) * plan["Actual Loops"]
    return max([mine, *(_most_rows(part) for part in plan.get("Plans", []))])


def test_named_items_are_taken_whatever_their_turn_or_pause_but_not_from_who_holds_them(
    engine: Engine, claims: Claims
) -> None:
    queue = Queue("named")
    with transaction(engine) as connection:
        claims.enqueue(connection, queue, [Item(1), Item(2), Item(3)])
        claims.enqueue(connection, queue, [Item(4)], delay=3600)
    assert [claim.item_id for claim in claims.claim(queue, "somebody", 1)] == [1]
    assert [claim.item_id for claim in claims.claim_these(queue, "me", [1, 3, 4])] == [3, 4]
    assert [claim.item_id for claim in claims.owned(queue, "me")] == [4, 3]
