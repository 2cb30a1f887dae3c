"""A batch through one step: in parallel, within its time, each item failing alone."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Collection, Sequence
from functools import partial

import pytest
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    ImgpipeError,
    LeaseLost,
    PartnerUnavailable,
    SpendingPaused,
)
from imgpipe_orchestration.storage.claims import Claim, Claims, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import drain, work_through, working_as
from imgpipe_orchestration.telemetry.logs import JsonFormatter, logger
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, finish, put


def taken(claims: Claims, number: int, queue: Queue = QUEUE) -> list[Claim]:
    put(claims, *range(1, number + 1), queue=queue)
    return claims.claim(queue, "run", number)


def test_items_are_begun_in_turn_and_as_many_at_once_as_there_are_threads(claims: Claims) -> None:
    batch = taken(claims, 12)
    begun: list[int] = []
    running, most = 0, 0
    lock, three = threading.Lock(), threading.Barrier(3)

    def step(claim: Claim) -> None:
        nonlocal running, most
        with lock:
            begun.append(claim.item_id)
            running += 1
            most = max(most, running)
        three.wait(60)
        with lock:
            running -= 1

    work_through(claims, QUEUE, batch, step, threads=3)
    assert most == 3
    assert all(abs(place - item) <= 3 for place, item in enumerate(begun, start=1))


def test_each_item_fails_alone_and_in_its_own_way(claims: Claims) -> None:
    errors: dict[int, Exception] = {
        1: BadImage("cut off"),
        2: PartnerUnavailable("away"),
        3: SpendingPaused("no budget"),
        4: ValueError("a fault of ours, with sig=https://h/?sig=hunter2hunter2"),
        5: LeaseLost("gone"),
    }

    def step(claim: Claim) -> None:
        if claim.item_id in errors:
            raise errors[claim.item_id]
        finish(claims, claim)

    outcome = work_through(claims, QUEUE, taken(claims, 7), step, threads=3)
    assert sorted(c.item_id for c in outcome.done) == [6, 7]
    assert outcome.failed == {1: "cut off"}
    assert set(outcome.retried) == {2, 3, 4}
    assert outcome.lost == [5]
    assert "ValueError" in outcome.retried[4]
    assert "hunter2" not in outcome.retried[4]


def test_no_item_is_begun_after_the_deadline_and_the_rest_stays_claimed(claims: Claims) -> None:
    batch = taken(claims, 10)
    deadline = time.monotonic() + 3

    def step(claim: Claim) -> None:
        if claim.item_id > 2:
            time.sleep(max(0.0, deadline - time.monotonic()) + 0.1)
        finish(claims, claim)

    outcome = work_through(claims, QUEUE, batch, step, threads=2, deadline=deadline)
    assert 2 <= len(outcome.done) <= 4
    assert [c.item_id for c in outcome.left] == [c.item_id for c in batch[len(outcome.done) :]]
    assert len(claims.owned(QUEUE, "run")) == len(outcome.left)


def test_who_comes_later_joins_while_one_item_takes_long(claims: Claims) -> None:
    batch = taken(claims, 1)
    others_done, places = threading.Event(), list[int]()

    def step(claim: Claim) -> None:
        if claim.item_id == 1:
            assert others_done.wait(30), "the others waited for the one that takes long"
        finish(claims, claim)
        if claim.item_id == 3:
            others_done.set()

    def further(free: int, _: object) -> list[Claim]:
        if not places:
            put(claims, 2, 3)
        places.append(free)
        return claims.claim(QUEUE, "run", free)

    outcome = work_through(claims, QUEUE, batch, step, threads=2, further=further)
    # The first may be noted before the third, whose thread lets it go on before it returns.
    assert ({claim.item_id for claim in outcome.done}, places[0]) == ({1, 2, 3}, 1)


def test_a_tenant_whose_items_take_long_leaves_threads_to_others(claims: Claims) -> None:
    """Also when hundreds more of its items wait in front of the others', and the others come later."""
    put(claims, *range(1, 500), tenant="slow")
    good_done, seen = threading.Event(), set[int]()

    def step(claim: Claim) -> None:
        if claim.tenant == "slow" and not good_done.is_set():
            seen.add(claim.item_id)
            assert good_done.wait(60), "the other tenant waited for the slow one"
        finish(claims, claim)
        if claim.tenant == "good":
            good_done.set()

    def further(free: int, full: Collection[str]) -> list[Claim]:
        if len(seen) == 3:
            put(claims, 1000, tenant="good")
        return claims.claim(QUEUE, "run", free, but=full)

    outcome = work_through(claims, QUEUE, claims.claim(QUEUE, "run", 4), step, threads=4, share=3, further=further)
    assert len(seen) == 3
    assert len(outcome.done) == 500 and not outcome.retried


def test_a_database_that_is_away_keeps_others_from_joining_and_nothing_else(claims: Claims) -> None:
    batch = taken(claims, 2)

    def further(*_: object) -> list[Claim]:
        raise BackendUnavailable("The database cannot be reached")

    outcome = work_through(claims, QUEUE, batch, partial(finish, claims), threads=4, further=further)
    assert len(outcome.done) == 2


def test_a_queue_is_drained_of_what_is_held_and_due_and_of_what_joins(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    claims.claim(QUEUE, "run", 1)  # as of a run that this one repeats

    def step(claim: Claim) -> None:
        if claim.item_id == 3:
            put(claims, 4)
        finish(claims, claim)

    with working_as(claims, "run"):
        outcome = drain(claims, QUEUE, "run", step, threads=2)
    assert sorted(claim.item_id for claim in outcome.done) == [1, 2, 3, 4]


def test_items_whose_worker_died_are_worked_on_by_themselves(claims: Claims) -> None:
    put(claims, 1)
    claims.claim(QUEUE, "dead", 1)
    claims.release("dead", died=True)
    put(claims, 2, 3)

    def step(claim: Claim) -> None:
        others = {claims.find(QUEUE, item).state for item in (2, 3)}
        assert claim.item_id != 1 or others == {State.WAITING}
        finish(claims, claim)

    outcome = drain(claims, QUEUE, "run", step, threads=3)
    assert sorted(claim.item_id for claim in outcome.done) == [1, 2, 3]


def test_a_queue_is_left_when_nothing_of_a_batch_was_done(claims: Claims) -> None:
    put(claims, *range(1, 10))

    def away(_: Claim) -> None:
        raise BackendUnavailable("The store is away")

    outcome = drain(claims, QUEUE, "run", away, threads=2, batch_size=3)
    assert len(outcome.retried) == 3


def test_a_feature_writes_its_failure_with_the_claims_and_only_then(claims: Claims, engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("create table failures (item bigint, state text, error text)"))

    def note(connection: Connection, claim: Claim, error: ImgpipeError, state: State) -> None:
        values = {"item": claim.item_id, "state": state.value, "error": error.public}
        connection.execute(text("insert into failures values (:item, :state, :error)"), values)

    def step(claim: Claim) -> None:
        if claim.item_id == 2:
            claims.release("run")  # another worker has it by now
        raise BadImage("cut off")

    outcome = work_through(claims, QUEUE, taken(claims, 2), step, threads=1, on_failure=note)
    with transaction(engine) as connection:
        rows = [tuple(row) for row in connection.execute(text("select * from failures"))]
    assert rows == [(1, "failed", "cut off")]
    assert outcome.lost == [2]


def test_a_failure_that_cannot_be_recorded_does_not_stop_the_others(claims: Claims) -> None:
    def mirror(connection: Connection, ids: Sequence[int], state: State, error: str | None) -> None:
        if error is not None:
            raise RuntimeError("no room for errors")

    queue = Queue("fragile", mirror=mirror)

    def step(claim: Claim) -> None:
        if claim.item_id == 1:
            raise BadImage("cut off")
        finish(claims, claim, queue)

    outcome = work_through(claims, queue, taken(claims, 5, queue), step, threads=1)
    assert len(outcome.done) == 4
    assert outcome.retried == {1: "cut off"}
    assert [c.item_id for c in claims.owned(queue, "run")] == [1]


def test_an_interrupted_run_waits_for_what_it_has_begun(claims: Claims) -> None:
    """What is raised in the main thread when a run is cancelled must not leave steps behind that still write."""
    ended = threading.Event()

    def step(claim: Claim) -> None:
        time.sleep(0.1)  # the main thread waits by now
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        work_through(claims, QUEUE, taken(claims, 3), step, threads=1)
    assert ended.is_set()


def test_what_a_step_logs_says_whose_it_is(claims: Claims) -> None:
    lines: list[dict[str, object]] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    put(claims, 1, tenant="acme", queue=QUEUE)
    kept, ours = Kept(), logger("step")
    ours.addHandler(kept)

    def step(claim: Claim) -> None:
        ours.warning("looking", extra={"size": 3})
        finish(claims, claim)

    try:
        work_through(claims, QUEUE, claims.claim(QUEUE, "run-7", 1), step, threads=1)
        ours.warning("after")
    finally:
        ours.removeHandler(kept)
    about = {"run": "run-7", "queue": "listings", "item": 1, "tenant": "acme", "size": 3}
    assert {name: lines[0].get(name) for name in about} == about
    assert "run" not in lines[1]


def test_the_log_has_what_a_partner_said_and_nothing_else_has(claims: Claims, caplog: pytest.LogCaptureFixture) -> None:
    def step(claim: Claim) -> None:
        raise PartnerUnavailable("The partner failed (HTTP 500)", detail='{"message": "out of paper", "token": "t0p"}')

    outcome = work_through(claims, QUEUE, taken(claims, 1), step, threads=1)
    assert outcome.retried == {1: "The partner failed (HTTP 500)"}
    (line,) = (json.loads(JsonFormatter().format(r)) for r in caplog.records if r.message == "item failed")
    assert line["error"] == "The partner failed (HTTP 500)"
    assert line["detail"] == '{"message": "out of paper", "token": "***"}'
