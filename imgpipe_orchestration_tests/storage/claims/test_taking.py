"""Items go in once and come out in turn, and each tenant has its turn."""

from collections import Counter

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.errors import (
    BadImage,
    PartnerUnavailable,
    SpendingPaused,
)
from imgpipe_orchestration.storage.claims import Claims, Item, Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, fail, finish, ids, put, row, time_passes


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


@pytest.mark.parametrize("how", ["paused", "requeued"])
def test_a_flood_that_comes_back_takes_its_turns(claims: Claims, how: str) -> None:
    put(claims, *range(200), tenant="flood")
    for claim in claims.claim(QUEUE, "run", 200):
        fail(claims, claim, SpendingPaused("no quota", retry_after=3600) if how == "paused" else BadImage("cut off"))
    if how == "paused":
        time_passes(claims)
    else:
        assert len(claims.requeue(QUEUE)) == 200
    put(claims, *range(1000, 1010), tenant="other")
    assert Counter(c.tenant for c in claims.claim(QUEUE, "run", 20)) == {"flood": 10, "other": 10}


def test_named_items_are_taken_whatever_their_turn_or_pause_but_not_from_who_holds_them(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    put(claims, 4, delay=3600)
    assert ids(claims.claim(QUEUE, "somebody", 1)) == [1]
    assert ids(claims.claim_these(QUEUE, "me", [1, 3, 4])) == [3, 4]
    assert ids(claims.owned(QUEUE, "me")) == [4, 3]
