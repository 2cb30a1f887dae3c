"""Job instances: who may start, finish and see them, and what becomes of those whose run died."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.errors import NotFound
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.claims import Claims, Queue
from imgpipe_orchestration.storage.job_instances import JobResult, JobStatus, Trigger
from imgpipe_orchestration.storage.rows import transaction

JOB = "auto_marker"


def test_a_customer_never_sees_another_ones_jobs(engine: Engine) -> None:
    mine, _ = job_instances.create_or_join(engine, JOB, customer_id="mine")
    job_instances.create_or_join(engine, JOB, customer_id="theirs")
    job_instances.create_or_join(engine, "another_job", customer_id="theirs")
    assert job_instances.get(engine, mine.id, customer_id="mine").id == mine.id
    for stranger in ("theirs", ""):
        with pytest.raises(NotFound):
            job_instances.get(engine, mine.id, customer_id=stranger)
    assert [i.id for i in job_instances.recent(engine, JOB, customer_id="mine")] == [mine.id]
    assert len(job_instances.recent(engine, JOB)) == 2
    assert len(job_instances.recent(engine, JOB, limit=1)) == 1


def test_twenty_simultaneous_requests_of_a_customer_make_one_instance(engine: Engine) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: job_instances.create_or_join(engine, JOB, customer_id="c1"), range(20)))
    assert len({instance.id for instance, _ in answers}) == 1
    assert sorted(joined for _, joined in answers) == [False] + [True] * 19


def test_a_request_joins_what_runs_and_not_what_is_over(engine: Engine) -> None:
    (running,) = job_instances.begin(Claims(engine), JOB, ["c1"], "run-1")
    assert job_instances.create_or_join(engine, JOB, customer_id="c1") == (running, True)
    joined_by = [job_instances.create_or_join(engine, JOB, customer_id="c1", user_id=u)[0] for u in ("u1", "u2")]
    assert [(one.id, one.user_id) for one in joined_by] == [(running.id, "u1")] * 2
    job_instances.finish(Claims(engine), [JobResult(running)])
    later, joined = job_instances.create_or_join(engine, JOB, customer_id="c1")
    assert (later.id == running.id, joined) == (False, False)


def test_a_scheduled_run_does_what_was_asked_for_and_leaves_other_runs_customers_alone(engine: Engine) -> None:
    asked, _ = job_instances.create_or_join(engine, JOB, customer_id="c1", user_id="u1")
    (begun,) = job_instances.begin(Claims(engine), JOB, ["c1"], "run-1")
    assert (begun.id, begun.trigger) == (asked.id, Trigger.ON_DEMAND)
    assert job_instances.begin(Claims(engine), JOB, ["c1"], "run-2") == []
    assert job_instances.begin(Claims(engine), JOB, ["c1"], "run-1") == [begun]
    (scheduled,) = job_instances.begin(Claims(engine), JOB, ["c1", "c2"], "run-2")
    assert (scheduled.customer_id, scheduled.trigger) == ("c2", Trigger.SCHEDULED)


def test_the_ending_of_one_lost_instance_costs_the_others_nothing(engine: Engine) -> None:
    claims = Claims(engine)
    mine, lost = job_instances.begin(claims, JOB, ["c1", "c2"], "run-1")
    claims.release("run-1")
    (again,) = job_instances.begin(claims, JOB, ["c1"], "run-1")
    assert job_instances.finish(claims, [JobResult(mine)]) == {mine.id}, "it has been begun once more since"
    assert job_instances.finish(claims, [JobResult(again), JobResult(lost)]) == {lost.id}
    assert job_instances.get(engine, mine.id).status is JobStatus.COMPLETED
    waiting = job_instances.get(engine, lost.id)
    assert (waiting.status, waiting.error) == (JobStatus.QUEUED, "The run run-1 was interrupted.")


def test_what_was_asked_for_survives_interruptions_and_gives_up_in_the_end(engine: Engine) -> None:
    claims = Claims(engine)
    asked, _ = job_instances.create_or_join(engine, JOB, customer_id="c1")
    for attempt in range(1, job_instances.MAX_LOSSES + 1):
        claims.release(f"run-{attempt - 1}")  # no attempt of a run that found its backend away
        (started,) = job_instances.start(claims, JOB, f"run-{attempt}", 10)
        assert claims.release(f"run-{attempt}", died=True) == 1
        assert job_instances.finish(claims, [JobResult(started)]) == {started.id}
    assert job_instances.start(claims, JOB, "run-4", 10) == []
    given_up = job_instances.get(engine, asked.id)
    assert (given_up.status, given_up.error) == (JobStatus.FAILED, "The run run-3 was interrupted.")
    assert claims.due_partitions(Queue(JOB)) == []


def test_who_takes_what_another_run_had_begun_knows_that(engine: Engine) -> None:
    claims = Claims(engine)
    (begun,) = job_instances.begin(claims, JOB, ["c1"], "run-1")
    (resumed,) = job_instances.begin(claims, JOB, ["c1"], "run-1")
    claims.release("run-1")
    (started,) = job_instances.start(claims, JOB, "run-2", 10)
    assert {one.id for one in (resumed, started)} == {begun.id}
    assert [one.again for one in (begun, resumed, started)] == [False, True, True]


def test_a_job_whose_user_was_erased_is_not_begun(engine: Engine) -> None:
    job_instances.create_or_join(engine, JOB, customer_id="c1")
    with transaction(engine) as connection:
        connection.exec_driver_sql("delete from job_instances")
    claims = Claims(engine)
    assert job_instances.start(claims, JOB, "run-1", 10) == []
    assert claims.due_partitions(Queue(JOB)) == []
