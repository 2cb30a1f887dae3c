"""Claims come back when their run ends badly, and say whether the run died over them."""

import threading
from collections.abc import Iterator

import dagster as dg
import psycopg
import pytest

from imgpipe_orchestration.dagster_side.run_tags import PARTITION, PIPELINE_TAG
from imgpipe_orchestration.dagster_side.sensors import (
    claims_of_cancelled_runs,
    claims_of_failed_runs,
    failed_just_now,
    owner_of,
    run_if_due,
    unfinished_run,
)
from imgpipe_orchestration.errors import LeaseLost
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.storage.claims import Claims, Queue
from imgpipe_orchestration.storage.job_instances import Trigger
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.dagster_side.jobs import broken, working
from imgpipe_orchestration_tests.storage.claims.shorthand import put

QUEUE = Queue("listings")


@pytest.fixture
def backends(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendsResource]:
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    resource = BackendsResource()
    yield resource
    resource.services.close()


def _claimed(claims: Claims, owner: str) -> None:
    put(claims, 1, queue=QUEUE)
    assert len(claims.claim(QUEUE, owner, 1)) == 1


def _tell(backends: BackendsResource, instance: dg.DagsterInstance, run: dg.DagsterRun, event: dg.DagsterEvent) -> None:
    """Have the sensor of such runs look at the end of this one."""
    given = {"sensor_backends": backends}
    with dg.build_run_status_sensor_context("ended", event, instance, run, resources=given) as context:
        if event.event_type is dg.DagsterEventType.RUN_CANCELED:
            claims_of_cancelled_runs(context)
        else:
            claims_of_failed_runs(context.for_run_failure())


@pytest.mark.parametrize(("how", "losses"), [("raised", 0), ("found dead", 1), ("cancelled", 0)])
def test_a_run_that_ends_badly_gives_its_claims_back(
    backends: BackendsResource, instance: dg.DagsterInstance, how: str, losses: int
) -> None:
    claims = backends.services.claims
    if how == "raised":
        result = broken.execute_in_process(instance=instance, raise_on_error=False)
        run, event = result.dagster_run, next(e for e in result.all_events if e.is_run_failure)
    else:
        run = instance.create_run_for_job(working)
        cancelled = how == "cancelled"
        event = instance.report_run_canceled(run) if cancelled else instance.report_run_failed(run, "it is gone")
    _claimed(claims, run.run_id)
    _tell(backends, instance, run, event)
    (claim,) = claims.claim(QUEUE, "next", 1)
    assert (claim.failures, claim.losses) == (0, losses)


def test_claims_come_back_also_from_a_database_that_takes_no_writes_for_a_moment(
    backends: BackendsResource, instance: dg.DagsterInstance
) -> None:
    claims, engine = backends.services.claims, backends.services.engine
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    setting = f"alter database {engine.url.database} {{}} default_transaction_read_only"
    with psycopg.connect(url, autocommit=True) as other:
        run = instance.create_run_for_job(working)
        event = instance.report_run_failed(run, "it is gone")
        _claimed(claims, run.run_id)
        other.execute(setting.format("set") + " = on")
        engine.dispose()
        over = threading.Timer(1, other.execute, [setting.format("reset")])
        over.start()
        _tell(backends, instance, run, event)
        over.join()
    assert len(claims.claim(QUEUE, "next", 1)) == 1


@pytest.mark.parametrize(("cancelled", "partition", "waiting"), [(1, {}, 0), (1, {PARTITION: "c1"}, 1), (0, {}, 1)])
def test_what_was_asked_for_waits_again_unless_somebody_cancelled_its_run_with_its_round(
    backends: BackendsResource, instance: dg.DagsterInstance, cancelled: int, partition: dict[str, str], waiting: int
) -> None:
    engine = backends.services.engine
    run = instance.create_run_for_job(working, tags=partition)
    begun, _ = job_instances.create_or_join(engine, "working", customer_id="c1")
    assert backends.services.claims.claim(Queue("working"), run.run_id, 1)
    with transaction(engine) as connection:
        job_instances.ensure(connection, "working", ["c2"], Trigger.SCHEDULED)
    event = instance.report_run_canceled(run) if cancelled else instance.report_run_failed(run)
    _tell(backends, instance, run, event)
    assert job_instances.get(engine, begun.id).status == ("failed" if cancelled else "queued")
    assert len(job_instances.recent(engine, "working", customer_id="c2")) == waiting


def test_a_reexecution_takes_over_what_the_first_run_held_whose_writes_are_then_refused(
    backends: BackendsResource, instance: dg.DagsterInstance
) -> None:
    """Its process may be alive: Dagster only believes it to be dead."""
    services = backends.services
    run = instance.create_run_for_job(working)
    event = instance.report_run_failed(run, "its process is gone")
    _claimed(services.claims, owner_of(services, run))
    (held,) = services.claims.owned(QUEUE, run.run_id)
    again = instance.create_run_for_job(working, parent_run_id=run.run_id, root_run_id=run.run_id)
    for _ in ("its first step", "another"):
        assert owner_of(services, again) == again.run_id
        assert [claim.item_id for claim in services.claims.owned(QUEUE, again.run_id)] == [1]
    with pytest.raises(LeaseLost), services.claims.fenced(held):
        pass
    _tell(backends, instance, run, event)
    assert [claim.item_id for claim in services.claims.owned(QUEUE, again.run_id)] == [1]
    event = instance.report_run_failed(again, "its process is gone, too")
    _tell(backends, instance, again, event)
    assert services.claims.claim(QUEUE, "next", 1)[0].losses == 1


def test_after_a_run_that_could_not_be_launched_the_next_tick_asks_for_none(
    backends: BackendsResource, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the broker is away, each tick would add a run that fails."""

    def asked() -> bool:
        with dg.build_sensor_context(instance=instance) as context:
            return bool(run_if_due(context, backends, "working", lambda _: True).run_requests)

    theirs = instance.create_run_for_job(working, status=dg.DagsterRunStatus.STARTING)
    assert asked(), "it is of another code location, whose job has our job's name"
    instance.report_run_failed(theirs, "Nobody answers at the broker.")
    assert asked()
    ours = instance.create_run_for_job(working, tags={PIPELINE_TAG: "working"}, status=dg.DagsterRunStatus.STARTING)
    assert not asked()
    instance.report_run_failed(ours, "Nobody answers at the broker.")
    assert not asked()
    monkeypatch.setattr("imgpipe_orchestration.dagster_side.sensors.PAUSE_SECONDS", 0.0)
    assert asked()
    monkeypatch.undo()
    broken.execute_in_process(instance=instance, raise_on_error=False)
    assert failed_just_now(instance, "broken", {}, at_work=False) is None, "it began"
    assert "failed; the next is asked for 30 s after it" in str(failed_just_now(instance, "broken", {}, at_work=True))


def test_a_tick_gives_back_what_several_failed_runs_held_also_those_of_the_dagster_command(
    backends: BackendsResource, instance: dg.DagsterInstance
) -> None:
    """Those have no code location. A tick is the daemon's, over a repository that has a name."""
    claims = backends.services.claims
    repository = dg.Definitions(jobs=[broken]).get_repository_def()

    def tick(cursor: str | None) -> str | None:
        with dg.build_sensor_context(
            instance=instance, cursor=cursor, repository_def=repository, resources={"sensor_backends": backends}
        ) as context:
            return claims_of_failed_runs.evaluate_tick(context).cursor

    cursor = tick(None)
    put(claims, 1, 2, 3, queue=QUEUE)
    for _ in range(3):
        run_id = broken.execute_in_process(instance=instance, raise_on_error=False).run_id
        assert len(claims.claim(QUEUE, run_id, 1)) == 1
    tick(cursor)
    assert len(claims.claim(QUEUE, "next", 10)) == 3


def test_a_run_whose_time_is_over_does_not_keep_the_next_from_beginning(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(working, status=dg.DagsterRunStatus.STARTING)
    assert unfinished_run(instance, "working", {}, at_most=1, seconds=0) == run.run_id, "it has not begun"
    instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "working"), run.run_id)
    assert unfinished_run(instance, "working", {}, at_most=1, seconds=60) == run.run_id
    assert unfinished_run(instance, "working", {}, at_most=1, seconds=0) is None
