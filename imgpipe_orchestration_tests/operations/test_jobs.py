"""The retention job: Dagster's event log and our tables shrink, and what is needed stays."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text

from imgpipe_orchestration.definitions import defs
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.operations.jobs import (
    COUNTED,
    garbage_collection,
    prune_runs,
    retention,
)
from imgpipe_orchestration.operations.tidying import tidy
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.claims import Queue
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.dagster_side.jobs import broken, working
from imgpipe_orchestration_tests.parts import ensure_database
from imgpipe_orchestration_tests.storage.claims.shorthand import finish, put


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["one", "two"]))
def pictures() -> None:
    return None


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["one", "two"]))
def texts() -> None:
    return None


@dg.asset
def figures() -> None:
    return None


made = dg.Definitions(
    assets=[pictures, texts, figures],
    jobs=[
        dg.define_asset_job("making_pictures", selection=[pictures]),
        dg.define_asset_job("making_both", selection=[pictures, texts]),
        dg.define_asset_job("making_figures", selection=[figures]),
    ],
    executor=dg.in_process_executor,
)


@dg.op(config_schema={"customers": [str]})
def marks(context: dg.OpExecutionContext) -> None:
    for customer in context.op_config["customers"]:
        context.log_event(dg.AssetMaterialization("clean", partition=customer))


@dg.job
def marking() -> None:
    marks()


@pytest.fixture(scope="module")
def dagster_url(postgres_server: Postgres) -> Iterator[str]:
    """A database of Dagster's own."""
    name = f"dagster_{uuid4().hex[:8]}"
    yield ensure_database(postgres_server, name)
    with psycopg.connect(postgres_server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def dagster_instance(dagster_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """Dagster over PostgreSQL, as in production."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\n"
        "storage:\n  postgres:\n    postgres_url: " + dagster_url.replace("postgresql://", "postgresql+psycopg2://")
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def instance(dagster_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """The same with no runs."""
    for record in dagster_instance.get_run_records():
        dagster_instance.delete_run(record.dagster_run.run_id)
    return dagster_instance


def run(instance: dg.DagsterInstance, job: dg.JobDefinition = working) -> str:
    return job.execute_in_process(instance=instance, raise_on_error=False).run_id


def make(instance: dg.DagsterInstance, job: str, partition: str | None = None) -> str:
    return made.resolve_job_def(job).execute_in_process(instance=instance, partition_key=partition).run_id


def mark(instance: dg.DagsterInstance, *customers: str) -> str:
    config = {"ops": {"marks": {"config": {"customers": list(customers)}}}}
    return marking.execute_in_process(config, instance=instance).run_id


def run_ids(instance: dg.DagsterInstance) -> set[str]:
    return {record.dagster_run.run_id for record in instance.get_run_records()}


def events(url: str) -> int:
    with psycopg.connect(url) as connection:
        (count,) = connection.execute("select count(*) from event_logs").fetchone() or (0,)
    return int(count)


def test_the_event_log_shrinks_and_newer_runs_stay(instance: dg.DagsterInstance, dagster_url: str) -> None:
    for job in (working, broken, working):
        run(instance, job)
    full = events(dagster_url)
    moment = time.time()
    new = run(instance)
    days = (time.time() - moment) / 86400
    assert prune_runs(instance, days=days) == (3, 0)
    assert run_ids(instance) == {new}
    assert 0 < events(dagster_url) < full / 2


def test_what_old_runs_printed_is_deleted_also_of_those_that_stay(instance: dg.DagsterInstance) -> None:
    printed = Path(instance.storage_directory())
    old = run(instance)
    assert list((printed / old).rglob("*.out"))
    made_last = make(instance, "making_figures")
    assert list((printed / made_last).rglob("*.out"))
    assert prune_runs(instance, days=0) == (1, 1)
    assert not (printed / old).exists() and not (printed / made_last).exists()


def test_what_made_a_partition_last_stays(instance: dg.DagsterInstance) -> None:
    make(instance, "making_pictures", "one")
    last = make(instance, "making_pictures", "one")
    other = make(instance, "making_pictures", "two")
    assert prune_runs(instance, days=0) == (1, 2)
    assert run_ids(instance) == {last, other}


def test_a_later_run_of_one_asset_does_not_take_anothers_partition_away(instance: dg.DagsterInstance) -> None:
    both = make(instance, "making_both", "one")
    again = make(instance, "making_pictures", "one")
    assert prune_runs(instance, days=0)[0] == 0
    assert run_ids(instance) == {both, again}
    assert instance.get_materialized_partitions(texts.key) == {"one"}


def test_what_runs_without_a_partition_made_of_many_stays(instance: dg.DagsterInstance) -> None:
    """Listings, auto-marker and vision reports report days and customers from jobs that have no partitions."""
    first = mark(instance, "a", "b")
    mark(instance, "a")
    last = mark(instance, "a")
    assert prune_runs(instance, days=0)[0] == 1
    assert run_ids(instance) == {first, last}
    assert instance.get_materialized_partitions(dg.AssetKey("clean")) == {"a", "b"}


def test_a_run_that_has_not_ended_stays(instance: dg.DagsterInstance) -> None:
    queued = instance.create_run_for_job(working)
    started = instance.create_run_for_job(working, status=dg.DagsterRunStatus.STARTED)
    assert prune_runs(instance, days=0)[0] == 0
    assert run_ids(instance) == {queued.run_id, started.run_id}


def test_old_history_goes_and_what_is_unfinished_or_paid_for_stays(services: Services) -> None:
    queue = Queue("listings")
    put(services.claims, 1, 2, queue=queue)
    (claim,) = services.claims.claim(queue, "run", 1)
    finish(services.claims, claim, queue)
    long_ago = datetime.now(UTC) - timedelta(days=500)
    with transaction(services.engine) as connection:
        connection.execute(text("update work_items set updated_at = :at"), {"at": long_ago})
        jobs = """insert into job_instances (job, trigger, status, finished_at) values
            ('a', 'scheduled', 'completed', :at), ('a', 'scheduled', 'failed', now()),
            ('a', 'on_demand', 'queued', null)"""
        connection.execute(text(jobs), {"at": long_ago})
        uses = """insert into paid_call_uses (key, at, outcome, pipeline, item, provider, operation, model)
            values ('k', :at, 'bought', 'p', 'i', 'openai', 'o', 'm'),
            ('k', now(), 'reused', 'p', 'i', 'openai', 'o', 'm')"""
        connection.execute(text(uses), {"at": long_ago})
        calls = """
            insert into paid_calls
                (key, provider, operation, model, input_hash, parameter_hash, state, value, committed_at)
            values (:key, 'openai', :operation, 'm', 'i', 'p', 'committed', '1', :at)"""
        for key, operation in (("typed once", "embedding"), ("k", "embedding"), ("a picture", "image")):
            connection.execute(text(calls), {"key": key, "operation": operation, "at": long_ago})
    removed = tidy(services)
    assert {name: number for name, number in removed.items() if number} == {
        "items": 1,
        "job_instances": 1,
        "paid_call_uses": 1,
    }
    with transaction(services.engine) as connection:
        assert set(connection.scalars(text("select key from paid_calls"))) == {"k", "a picture"}
    counts = services.claims.counts()["listings"]
    assert (counts.done, counts.waiting) == (0, 1)
    assert not any(tidy(services).values())


def test_the_job_runs_both_and_shows_what_it_removed(
    instance: dg.DagsterInstance, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("RETENTION_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    backends = BackendsResource()
    monkeypatch.setenv("RETENTION_DAYS", "0.000000001")
    run(instance)
    result = retention.execute_in_process(instance=instance, resources={"backends": backends})
    assert result.success
    outputs = [event.step_output_data for event in result.all_events if event.is_successful_output]
    shown = {name: value.value for output in outputs for name, value in output.metadata.items()}
    assert shown["runs_deleted"] == 1
    assert shown["items"] == 0
    assert run_ids(instance) == {result.run_id}


def test_garbage_is_told_by_hand_and_deleted_by_night(
    instance: dg.DagsterInstance, environment: None, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    resources = {"backends": BackendsResource()}

    def collected(config: object) -> dict[str, object]:
        result = garbage_collection.execute_in_process(instance=instance, resources=resources, run_config=config)
        (output,) = [event.step_output_data for event in result.all_events if event.is_successful_output]
        return {name: value.value for name, value in output.metadata.items() if name in COUNTED}

    with transaction(services.engine) as connection:
        connection.execute(
            text("""
                insert into image_queue (public_id, listing_title, file_name, status, max_retries, original_name,
                    original_key, content_type, bytes, width, height)
                values (gen_random_uuid(), 'a', 'a-1.webp', 'processed', 3, 'a', 'originals/1', 'image/jpeg', 100, 1, 1)
            """)
        )
    for bucket, key in (
        (services.listings_bucket, "originals/1"),
        (services.listings_bucket, "originals/orphan"),
        (services.media_bucket, "bulk/2026-01-31/7.jpg"),
    ):
        bucket.put(key, b"x" * 100, content_type="image/jpeg")
    nightly = defs.get_repository_def().get_schedule_def("garbage_collection_schedule")
    asked = nightly.evaluate_tick(dg.build_schedule_context(instance=instance)).run_requests
    assert asked
    delete = asked[0].run_config

    monkeypatch.setattr("imgpipe_orchestration.operations.tidying.GRACE_HOURS", 0.0000001)
    old = {"objects": 3, "garbage": 2, "young": 0, "garbage_bytes": 200, "deleted": 0}
    old |= {"missing": 1, "lost": 0, "repaired": 0}
    assert collected({}) == old
    assert collected(delete) == {**old, "deleted": 2, "repaired": 1}
    assert {one.key for one in services.listings_bucket.list()} == {"originals/1"}
    assert [one.key for one in services.media_bucket.list()] == []

    services.listings_bucket.delete("originals/1")
    lost = garbage_collection.execute_in_process(instance=instance, resources=resources, raise_on_error=False)
    (failure,) = [event.step_failure_data.user_failure_data for event in lost.all_events if event.is_step_failure]
    assert failure is not None
    assert failure.metadata["lost"].value == 2, "the original, and the WebP that could have been made of it"
