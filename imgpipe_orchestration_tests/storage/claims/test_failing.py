"""What a failure costs, and what a worker's death costs."""

from collections.abc import Sequence

import pytest
from sqlalchemy import Connection, Engine, text

from imgpipe_orchestration.errors import (
    BackendUnavailable,
    BadImage,
    ImgpipeError,
    PartnerAway,
    PartnerUnavailable,
    RateLimited,
    SettingsError,
    SpendingPaused,
)
from imgpipe_orchestration.storage.claims import MAX_LOSSES, Claims, Item, Queue, State
from imgpipe_orchestration.storage.queues import BACKOFF_LIMIT_SECONDS, PAUSE_LIMIT_SECONDS, PAUSE_SECONDS, backoff
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, fail, finish, ids, put, row, time_passes


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


@pytest.mark.parametrize(
    ("error", "attempts"), [(PartnerAway("away"), 5), (RateLimited("slowly"), 5), (PartnerUnavailable("late"), 3)]
)
def test_a_queue_may_be_more_patient_with_a_partner_that_charges_nothing(
    claims: Claims, error: ImgpipeError, attempts: int
) -> None:
    patient, state, tried = Queue(QUEUE.name, away_attempts=5), State.WAITING, 0
    put(claims, 1)
    while state is State.WAITING:
        (claim,) = claims.claim(patient, "run", 1)
        state = fail(claims, claim, error, patient)
        tried += 1
        time_passes(claims)
    assert (state, tried) == (State.FAILED, attempts)


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (SpendingPaused("no key"), 120),
        (BackendUnavailable("no store"), PAUSE_SECONDS),
        (SettingsError("MODEL_PRICES must look otherwise"), 120),
    ],
)
def test_what_is_not_the_items_fault_never_gives_up(engine: Engine, error: ImgpipeError, pause: float) -> None:
    claims = Claims(engine, spending_pause=120)
    put(claims, 1)
    for _ in range(3 * QUEUE.max_attempts):
        (claim,) = claims.claim(QUEUE, "run", 1)
        assert fail(claims, claim, error) is State.WAITING
        assert row(claims, 1).due_in == pytest.approx(pause, abs=2)
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
    assert row(claims, 1).error.startswith("bad name: ab\ufffd xxx")
    assert len(row(claims, 1).error) == 2000


@pytest.mark.parametrize("size", [64, 1000])
def test_an_item_that_kills_its_worker_is_given_up_and_takes_nobody_with_it(claims: Claims, size: int) -> None:
    """Each round claims a batch and dies if the killer is in it; everything else is finished."""
    put(claims, *range(1, size + 1))
    killer, runs = 7, 0
    while claims.due_partitions(QUEUE):
        runs += 1
        assert runs < 60
        batch = claims.claim(QUEUE, f"run-{runs}", size)
        if killer in ids(batch):
            time_passes(claims, 31)
        else:
            for claim in batch:
                finish(claims, claim)
    counts = claims.counts()["listings"]
    assert (counts.done, counts.failed) == (size - 1, 1)
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


@pytest.mark.parametrize("asked", ["requeued", "enqueued again"])
def test_what_is_to_be_done_again_has_no_failures_and_no_losses(claims: Claims, asked: str) -> None:
    put(claims, 1)
    claims.claim(QUEUE, "dies", 1)
    claims.release("dies", died=True)
    (claim,) = claims.claim(QUEUE, "run", 1)
    assert claim.losses == 1
    fail(claims, claim, BadImage("no image"))
    if asked == "requeued":
        claims.requeue(QUEUE)
    else:
        with transaction(claims.engine) as connection:
            claims.enqueue(connection, QUEUE, [Item(1)], again=True)
    (claim,) = claims.claim(QUEUE, "run", 1)
    assert (claim.failures, claim.losses) == (0, 0)
