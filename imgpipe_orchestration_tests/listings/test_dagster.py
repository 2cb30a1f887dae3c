"""The queue in Dagster: the sensor's decision, the job's run, the asset of a day."""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.listings.assets import listing_images, process_image_queue
from imgpipe_orchestration.listings.definitions import definitions, process_image_queue_sensor
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.dagster_side.instances import project, tick, why_not
from imgpipe_orchestration_tests.listings.conftest import JOB, photo, queued
from imgpipe_orchestration_tests.media.worker import today

IMAGES = listing_images.key
CUT_SHORT = photo()[:-1000]


pytestmark = pytest.mark.usefixtures("environment")


def days_asked_for(instance: dg.DagsterInstance) -> list[str | None]:
    return [asked.partition_key for asked in tick(process_image_queue_sensor, instance).run_requests or []]


def job() -> dg.JobDefinition:
    return project(definitions).resolve_job_def(process_image_queue.name)


def run(instance: dg.DagsterInstance, **options: Any) -> dg.ExecuteInProcessResult:
    return job().execute_in_process(instance=instance, **options)


def sensors_run(instance: dg.DagsterInstance, day: str = "", **options: Any) -> dg.ExecuteInProcessResult:
    return run(instance, partition_key=day or today(), tags={DUE_ONLY: "true"}, **options)


def test_a_run_is_asked_for_only_when_something_is_due(client: Client, instance: dg.DagsterInstance) -> None:
    assert why_not(process_image_queue_sensor, instance) == "nothing is due"
    queued(client, photo())
    assert days_asked_for(instance) == [today()]
    client.delete(JOB)
    assert "the job is stopped" in why_not(process_image_queue_sensor, instance)
    client.post("/api/jobs", json={"id": "process-image-queue", "type": "process_images"})
    assert days_asked_for(instance) == [today()]
    due = {DUE_ONLY: "true"}
    instance.create_run_for_job(job(), tags=due)  # as a webserver leaves it that is killed before it queues it
    instance.create_run_for_job(job(), status=dg.DagsterRunStatus.STARTED)  # of a backfill
    assert days_asked_for(instance) == [today()]
    unfinished = instance.create_run_for_job(job(), status=dg.DagsterRunStatus.STARTED, tags=due)
    assert why_not(process_image_queue_sensor, instance) == f"run {unfinished.run_id} has not ended"


def test_a_run_records_what_it_made_by_day_and_a_day_can_be_made_again(
    client: Client, instance: dg.DagsterInstance
) -> None:
    queued(client, photo(), photo(), CUT_SHORT)
    first = sensors_run(instance)
    assert first.success
    made = instance.fetch_materializations(IMAGES, limit=10).records
    assert [record.partition_key for record in made] == [today()]
    assert made[0].asset_materialization is not None
    metadata = made[0].asset_materialization.metadata
    assert (metadata["processed"].value, metadata["failed"].value) == (2, 1)
    assert ".webp" not in str(metadata), "titles are in the files' names, and an erasure does not reach them here"
    shown = client.get(JOB).json()["data"]
    assert (shown["last_run_id"], shown["last_result"]["processed"]) == (first.run_id, 2)

    again = run(instance, partition_key=today())
    metadata = dict(again.asset_materializations_for_node("listing_images")[0].metadata)
    assert (metadata["made again"].value, metadata["processed"].value) == (2, 2)
    assert "errors" not in metadata
    with pytest.raises(dg.Failure, match="no partition '2019-12-31'; there is one for each day from 2020-01-01"):
        run(instance, tags={"dagster/partition": "2019-12-31"})


def test_what_is_due_of_another_day_joins_and_is_told_of_as_that_days(
    client: Client, instance: dg.DagsterInstance
) -> None:
    queued(client, photo())
    yesterday = (datetime.now(UTC).date() - timedelta(days=1)).isoformat()
    assert sensors_run(instance, yesterday).success
    made = instance.fetch_materializations(IMAGES, limit=10).records
    assert [record.partition_key for record in made] == [today()]
    assert run(instance, partition_key=yesterday).success, "a backfill's day is green, also with nothing to make"
    newest = instance.fetch_materializations(IMAGES, limit=1).records[0]
    assert newest.partition_key == yesterday


def test_a_day_that_got_no_image_is_observed_with_its_failures_and_not_materialized(
    client: Client, instance: dg.DagsterInstance
) -> None:
    queued(client, CUT_SHORT)
    assert sensors_run(instance).success
    assert not instance.fetch_materializations(IMAGES, limit=1).records
    (record,) = instance.fetch_observations(IMAGES, limit=10).records
    assert record.asset_observation is not None
    metadata = record.asset_observation.metadata
    assert (metadata["processed"].value, metadata["failed"].value) == (0, 1)
