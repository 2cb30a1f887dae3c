"""Counts, dead letters and histories: always equal to what the tables hold, whatever happened to the items."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.errors import BadImage, HeldBack, PartnerUnavailable
from imgpipe_orchestration.storage import history
from imgpipe_orchestration.storage.claims import Claims, Queue, State
from imgpipe_orchestration_tests.storage.claims.shorthand import QUEUE, fail, finish, put, time_passes


def counted(claims: Claims) -> dict[tuple[str, str], int]:
    """The counts the slow way."""
    with claims.engine.begin() as connection:
        rows = connection.execute(text("select queue, state, count(*) from work_items group by 1, 2"))
        return {(row[0], row[1]): row[2] for row in rows}


def kept(claims: Claims) -> dict[tuple[str, str], int]:
    return {
        (queue, state.value): number
        for queue, counts in claims.counts().items()
        for state in State
        if (number := getattr(counts, state.value))
    }


def test_counts_follow_an_item_through_its_states(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    assert kept(claims) == {("listings", "waiting"): 3}
    first, second = claims.claim(QUEUE, "run", 2)
    assert kept(claims) == {("listings", "waiting"): 1, ("listings", "claimed"): 2}
    finish(claims, first)
    fail(claims, second, BadImage("no image"))
    assert kept(claims) == {("listings", "waiting"): 1, ("listings", "done"): 1, ("listings", "failed"): 1}
    claims.ignore(QUEUE, [second.item_id])
    assert claims.counts()["listings"].ignored == 1
    claims.requeue(QUEUE, [second.item_id])
    assert claims.counts()["listings"].waiting == 2


def test_counts_stay_exact_under_many_writers_and_their_tidying(claims: Claims) -> None:
    put(claims, *range(200))

    def work(seed: int) -> None:
        dice = random.Random(seed)
        for n in range(40):
            put(claims, 1000 * (seed + 1) + n, queue=Queue(f"queue-{dice.randrange(3)}"))
            for claim in claims.claim(QUEUE, f"run-{seed}", 2):
                finish(claims, claim)
            with claims.engine.begin() as connection:
                connection.execute(text("select work_counts_add_up()"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert kept(claims) == counted(claims)
    with claims.engine.begin() as connection:
        connection.execute(text("select work_counts_add_up()"))
        rows = connection.scalar(text("select count(*) from work_counts"))
    assert rows is not None and rows <= 3 * len(counted(claims))


def test_deleting_and_truncating_items_is_counted_too(claims: Claims) -> None:
    put(claims, 1, 2, 3)
    with claims.engine.begin() as connection:
        connection.execute(text("delete from work_items where item_id = 1"))
    assert claims.counts()["listings"].waiting == 2
    with claims.engine.begin() as connection:
        connection.execute(text("truncate work_items"))
    assert claims.counts() == {}


def test_ages_and_stuck_items_are_told(claims: Claims, engine: Engine) -> None:
    put(claims, 1, 2)
    with engine.begin() as connection:
        connection.execute(text("update work_items set created_at = now() - interval '2 hours' where item_id = 1"))
    counts = claims.counts()["listings"]
    assert counts.oldest_waiting_seconds == pytest.approx(7200, abs=60)
    assert counts.stuck == 1
    assert counts.average_seconds is None
    for claim in claims.claim(QUEUE, "run", 1):
        finish(claims, claim)
    counts = claims.counts()["listings"]
    assert counts.average_seconds == pytest.approx(7200, abs=60)
    assert counts.stuck == 0


def test_dead_letters_are_listed_with_their_reason_latest_first_and_page_by_page(claims: Claims) -> None:
    put(claims, *range(1, 6), tenant="user-7")
    for claim in claims.claim(QUEUE, "run", 5):
        fail(claims, claim, BadImage(f"image {claim.item_id} is cut off"))
    other = Queue("avatars")
    put(claims, 9, queue=other)
    (claim,) = claims.claim(other, "run", 1)
    fail(claims, claim, BadImage("no face"), other)

    letters = claims.failures()
    assert [(letter.queue, letter.item_id) for letter in letters] == [
        ("avatars", 9),
        *(("listings", n) for n in (5, 4, 3, 2, 1)),
    ]
    assert letters[1].error == "image 5 is cut off"
    assert (letters[1].error_code, letters[1].attempts, letters[1].tenant) == ("bad-image", 1, "user-7")

    page = claims.failures(QUEUE, limit=2)
    following = claims.failures(QUEUE, limit=2, before=(page[-1].failed_at, QUEUE.name, page[-1].item_id))
    assert [letter.item_id for letter in page + following] == [5, 4, 3, 2]
    everything = claims.failures(limit=1)
    last = everything[-1]
    assert claims.failures(limit=10, before=(last.failed_at, last.queue, last.item_id)) == letters[1:]


def test_a_history_tells_how_each_attempt_ended(claims: Claims) -> None:
    put(claims, 1)
    for owner, error in (
        ("first", PartnerUnavailable("away")),
        ("second", HeldBack("not asked")),
        ("third", BadImage("no image")),
    ):
        (claim,) = claims.claim(QUEUE, owner, 1)
        fail(claims, claim, error)
        time_passes(claims)
    attempts = claims.history(QUEUE, 1)
    assert [(a.attempt, a.owner, a.outcome, a.error) for a in attempts] == [
        (1, "first", "retry", "away"),
        (2, "second", "waits", "not asked"),
        (3, "third", "failed", "no image"),
    ]
    assert all(a.started_at is not None and a.started_at <= a.ended_at for a in attempts)


def test_retention_takes_finished_items_with_their_attempts_and_leaves_dead_letters(
    claims: Claims, engine: Engine
) -> None:
    put(claims, *range(1, 9))
    for claim in claims.claim(QUEUE, "run", 6):
        if claim.item_id <= 4:
            finish(claims, claim)
        else:
            fail(claims, claim, BadImage("cut off"))
    with engine.begin() as connection:
        old = "now() - interval '40 days'"
        connection.execute(text(f"update work_items set updated_at = {old} where item_id <> 1"))
        connection.execute(text(f"update work_attempts set ended_at = {old} where item_id <> 1"))
    assert history.purge(claims.engine, 30, 400)["items"] == 3
    assert kept(claims) == counted(claims)
    assert kept(claims) == {("listings", "waiting"): 2, ("listings", "done"): 1, ("listings", "failed"): 2}
    assert claims.history(QUEUE, 1) != []
    assert claims.history(QUEUE, 2) == []
    assert len(claims.history(QUEUE, 5)) == 1


def test_batches_stop_at_their_bound(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("create table old as select generate_series(1, 10) as id"))
    batch, gone = text("delete from old where id in (select id from old limit :batch) returning id"), list[int]()
    removed = [history.in_batches(engine, batch, 30, limit=limit, forget=gone.extend) for limit in (4, 100, 100)]
    assert (removed, sorted(gone)) == ([4, 6, 0], list(range(1, 11)))
