"""Job instances: who may start, finish and see them, and what becomes of those whose run died."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import Engine

from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.claims import MAX_LOSSES, Claim, Claims, Queue, State
from imgpipe_orchestration.storage.job_instances import JobStatus, Trigger
from imgpipe_orchestration.storage.rows import transaction

JOB = "auto_marker"
QUEUE = Queue(JOB, mirror=job_instances.follow)


def ensured(engine: Engine, *customers: str) -> list[int]:
    with transaction(engine) as connection:
        return job_instances.ensure(connection, JOB, customers, Trigger.SCHEDULED)


def begun(engine: Engine, claim: Claim) -> Any:
    with transaction(engine) as connection:
        return next(iter(job_instances.begin(connection, claim.owner, [claim.item_id])), None)


def finished(claims: Claims, claim: Claim) -> None:
    with transaction(claims.engine) as connection:
        claims.finish(connection, QUEUE, claim)
        job_instances.finish(connection, claim.item_id, {"images_marked": 3}, error=None, failed=False)


def test_twenty_simultaneous_requests_of_a_customer_make_one_instance(engine: Engine) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: job_instances.create_or_join(engine, JOB, customer_id="c1"), range(20)))
    assert len({instance.id for instance, _ in answers}) == 1
    assert sorted(joined for _, joined in answers) == [False] + [True] * 19


def test_a_request_joins_what_runs_and_not_what_is_over(engine: Engine) -> None:
    claims = Claims(engine)
    ensured(engine, "c1")
    (claim,) = claims.claim(QUEUE, "run-1", 10)
    running = begun(engine, claim)
    joined_by = [job_instances.create_or_join(engine, JOB, customer_id="c1", user_id=u) for u in ("", "u1", "u2")]
    assert [(one.id, one.user_id, joined) for one, joined in joined_by] == [
        (running.id, "", True),
        (running.id, "u1", True),
        (running.id, "u1", True),
    ]
    finished(claims, claim)
    over = job_instances.get(engine, running.id)
    assert (over.status, over.run_id, over.result) == (JobStatus.COMPLETED, "run-1", {"images_marked": 3})
    later, joined = job_instances.create_or_join(engine, JOB, customer_id="c1")
    assert (later.id == running.id, joined) == (False, False)


def test_a_round_takes_up_what_was_asked_for(engine: Engine) -> None:
    asked, _ = job_instances.create_or_join(engine, JOB, customer_id="c1", user_id="u1")
    numbers = ensured(engine, "c1", "c2")
    assert ensured(engine, "c1", "c2") == numbers
    assert {(one.customer_id, one.trigger) for one in job_instances.recent(engine, JOB)} == {
        ("c1", Trigger.ON_DEMAND),
        ("c2", Trigger.SCHEDULED),
    }
    assert asked.number in numbers
    assert {claim.item_id for claim in Claims(engine).claim(QUEUE, "run-1", 10)} == set(numbers)


def test_what_was_asked_for_survives_interruptions_and_gives_up_in_the_end(engine: Engine) -> None:
    claims = Claims(engine)
    asked, _ = job_instances.create_or_join(engine, JOB, customer_id="c1")
    for attempt in range(MAX_LOSSES + 1):
        (claim,) = claims.claim(QUEUE, f"run-{attempt}", 10)
        assert begun(engine, claim).again == (attempt > 0)
        assert job_instances.get(engine, asked.id).status == JobStatus.RUNNING
        assert claims.release(f"run-{attempt}", died=True) == 1
        waits = job_instances.get(engine, asked.id)
        assert (waits.status, waits.error) == (JobStatus.QUEUED, f"The run run-{attempt} was interrupted.")
    assert claims.claim(QUEUE, "last", 10) == []
    given_up = job_instances.get(engine, asked.id)
    assert given_up.status == JobStatus.FAILED
    assert "The worker died" in given_up.error
    assert claims.find(QUEUE, asked.number).state is State.FAILED


def test_a_job_that_failed_is_not_revived_beside_a_later_one(engine: Engine) -> None:
    claims = Claims(engine)
    asked, _ = job_instances.create_or_join(engine, JOB, customer_id="c1")
    with transaction(engine) as connection:
        job_instances.follow(connection, [asked.number], State.FAILED, "Its runs died.")
    later, _ = job_instances.create_or_join(engine, JOB, customer_id="c1")
    with transaction(engine) as connection:
        job_instances.follow(connection, [asked.number, later.number], State.WAITING, None)
    assert job_instances.get(engine, asked.id).status == JobStatus.FAILED
    claim = next(one for one in claims.claim(QUEUE, "run-1", 10) if one.item_id == asked.number)
    assert begun(engine, claim) is None


def test_a_job_whose_user_was_erased_is_not_begun(engine: Engine) -> None:
    job_instances.create_or_join(engine, JOB, customer_id="c1")
    with transaction(engine) as connection:
        connection.exec_driver_sql("delete from job_instances")
    (claim,) = Claims(engine).claim(QUEUE, "run-1", 10)
    assert begun(engine, claim) is None
