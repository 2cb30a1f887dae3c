"""Items that are given back, requeued or withdrawn."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, text

from imgpipe_orchestration.errors import (
    BadImage,
    LeaseLost,
    PartnerUnavailable,
    RateLimited,
)
from imgpipe_orchestration.storage.claims import Claims, Queue, State
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, fail, finish, ids, put, row, time_passes


def test_pauses_end_at_once_where_somebody_says_so_and_the_attempts_stay_spent(claims: Claims) -> None:
    put(claims, 1, 2, 3, 4)
    for claim in claims.claim(QUEUE, "run", 3):
        fail(claims, claim, RateLimited("tomorrow", retry_after=86400))
    assert claims.hasten(QUEUE, [2, 4, 99]) == [2]
    assert sorted(ids(claims.claim(QUEUE, "run", 10))) == [2, 4]
    assert sorted(claims.hasten(QUEUE)) == [1, 3]
    assert claims.hasten(QUEUE) == []
    assert [row(claims, item).failures for item in (1, 2, 3)] == [1, 1, 1]
    assert sorted(ids(claims.claim(QUEUE, "run", 10))) == [1, 3]


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
    assert claims.claim(QUEUE, "next", 1, suspects=False) == []
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


def test_what_was_ignored_is_listed_and_taken_back_but_not_what_was_withdrawn(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    first, second, third = claims.claim(QUEUE, "run", 3)
    fail(claims, first, BadImage("cut off"))
    fail(claims, second, PartnerUnavailable("away"))
    fail(claims, third, BadImage("torn"))
    with transaction(claims.engine) as connection:
        claims.withdraw(connection, QUEUE, [2], "no longer wanted")
    claims.ignore(QUEUE, [1])
    for queue in (QUEUE, None):
        assert [letter.item_id for letter in claims.failures(queue, ignored=True)] == [1]
        assert [letter.item_id for letter in claims.failures(queue)] == [3]
    assert [claims.find(QUEUE, item).dismissed for item in (1, 2, 3)] == [True, False, False]
    assert claims.unignore(QUEUE, [1, 2, 3]) == [1]
    assert claims.requeue(QUEUE, [2]) == []
    assert [letter.item_id for letter in claims.failures(QUEUE)] == [1, 3]
    assert claims.failures(ignored=True) == []


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
        ([2], State.WAITING, None),
    ]
