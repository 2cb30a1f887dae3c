"""A lease holds an item while its worker lives; a fence keeps out who lost it."""

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.errors import (
    BadImage,
    LeaseLost,
    PartnerUnavailable,
)
from imgpipe_orchestration.storage import leases
from imgpipe_orchestration.storage.claims import Claims, State
from imgpipe_orchestration.storage.leases import kept_alive
from imgpipe_orchestration.storage.rows import connect, transaction
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, fail, finish, put, row, time_passes


@pytest.mark.parametrize("heir", ["quick", "slow"])  # also the same owner: then by the attempt
def test_a_lease_that_ran_out_lets_another_take_over_and_fences_the_first(claims: Claims, heir: str) -> None:
    put(claims, 1)
    (old,) = claims.claim(QUEUE, "slow", 1)
    time_passes(claims, 31)
    (new,) = claims.claim(QUEUE, heir, 1)
    assert (new.attempt, new.losses) == (2, 1)
    for write in (finish, lambda c, claim: fail(c, claim, BadImage("late"))):
        with pytest.raises(LeaseLost):
            write(claims, old)
    finish(claims, new)
    outcomes = [(a.owner, a.outcome) for a in claims.history(QUEUE, 1)]
    assert outcomes == [("slow", "lost"), (heir, "done")]


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


@pytest.fixture
def quick_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten beats a second for leases of any length, so that time may pass in the table instead of in the test."""
    monkeypatch.setattr(leases, "kept_alive", lambda renewed, _, *, name: kept_alive(renewed, 0.3, name=name))


@pytest.mark.usefixtures("quick_heart")
def test_a_step_that_writes_for_long_does_not_hold_up_the_other_leases(claims: Claims) -> None:
    put(claims, 1, 2)
    first, second = claims.claim(QUEUE, "run", 2)
    with claims.hold("run"), claims.fenced(first) as connection:
        for _ in range(3):
            with transaction(claims.engine) as other:  # not `time_passes`, which would wait for the fence of the first
                other.execute(text("update work_items set due_at = due_at - interval '20 s' where item_id = 2"))
            wait_for(lambda: row(claims, 2).due_in > 15, "the second lease to be renewed")
            assert claims.claim(QUEUE, "other", 2) == []
        with claims.fenced(second) as other:
            claims.finish(other, QUEUE, second)
        claims.finish(connection, QUEUE, first)


@pytest.mark.usefixtures("quick_heart")
def test_a_pool_emptied_by_busy_steps_does_not_stop_the_heart(postgres_url: str) -> None:
    engine = connect(postgres_url, pool_size=1)
    claims, other = Claims(engine, lease_seconds=30), Claims(connect(postgres_url))
    put(claims, 1)
    (claim,) = claims.claim(QUEUE, "run", 1)
    with claims.hold("run"), engine.connect():
        for _ in range(3):
            time_passes(other, 20)
            wait_for(lambda: row(other, 1).due_in > 15, "the lease to be renewed")
            assert other.claim(QUEUE, "other", 1) == []
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


def test_leases_follow_the_database_clock_whatever_the_time_zone_of_the_session(
    claims: Claims, postgres_url: str
) -> None:
    far = connect(postgres_url + "?options=-c%20timezone%3DPacific/Kiritimati")
    put(claims, 1)
    (claim,) = Claims(far, lease_seconds=30).claim(QUEUE, "far", 1)
    assert 25 < row(claims, 1).due_in <= 30
    assert claims.claim(QUEUE, "near", 1) == []
    finish(claims, claim)
    far.dispose()


def test_a_renewal_that_fails_is_tried_again() -> None:
    tries = 0

    def fails_once() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("the database is away")

    with kept_alive(fails_once, 0.03, name="stubborn"):
        wait_for(lambda: tries > 1, "another try", 10)
