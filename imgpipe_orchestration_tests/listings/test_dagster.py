"""The queue in Dagster: the sensor's decision, the job's run, the asset of a day."""

from __future__ import annotations

import base64
import io
import os
import re
from datetime import UTC, datetime

import dagster as dg
import pytest
from PIL import Image

from imgpipe_orchestration import resources
from imgpipe_orchestration.dagster_side.sensors import PRIORITY
from imgpipe_orchestration.listings import assets, jobs, sensors
from imgpipe_orchestration.listings.definitions import definitions
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.listings.conftest import JOB, photo, queued

IMAGES = assets.listing_images.key
CUT_SHORT = photo()[:-1000]


@pytest.fixture
def resource(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> BackendsResource:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    return resources.build_backends()


def tick(instance: dg.DagsterInstance, backends: BackendsResource) -> dg.RunRequest | dg.SkipReason:
    with dg.build_sensor_context(instance=instance, resources={"sensor_backends": backends}) as context:
        answer = sensors.process_image_queue_sensor(context)
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    assert isinstance(answer, dg.SkipReason) or PRIORITY.items() <= answer.tags.items()
    return answer


def test_job_and_sensor_go_by_the_name_of_the_definition() -> None:
    repository = dg.Definitions.merge(definitions, dg.Definitions(resources=resources.build())).get_repository_def()
    assert repository.has_job("process_image_queue")
    sensor = repository.get_sensor_def("process_image_queue_sensor")
    assert (sensor.minimum_interval_seconds, sensor.default_status) == (10, dg.DefaultSensorStatus.RUNNING)


def test_a_run_is_asked_for_only_when_something_is_due(
    client: Client, instance: dg.DagsterInstance, resource: BackendsResource
) -> None:
    assert tick(instance, resource) == dg.SkipReason("nothing is due")
    queued(client, photo())
    assert isinstance(tick(instance, resource), dg.RunRequest)
    client.delete(JOB)
    assert isinstance(tick(instance, resource), dg.SkipReason)
    client.post("/api/jobs", json={"id": "process-image-queue", "type": "process_images"})
    assert isinstance(tick(instance, resource), dg.RunRequest)
    instance.create_run_for_job(jobs.process_image_queue)  # as a webserver leaves it that is killed before it queues it
    assert isinstance(tick(instance, resource), dg.RunRequest)
    unfinished = instance.create_run_for_job(jobs.process_image_queue, status=dg.DagsterRunStatus.STARTED)
    assert tick(instance, resource) == dg.SkipReason(f"run {unfinished.run_id} is under way")


def test_a_run_goes_where_the_launchpad_points_a_resource(
    client: Client, instance: dg.DagsterInstance, resource: BackendsResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued(client, photo())
    monkeypatch.setenv("ANOTHER_DATABASE", os.environ["DATABASE_URL"])
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    project = dg.Definitions.merge(definitions, dg.Definitions(resources=resources.build()))
    job = project.resolve_job_def(jobs.process_image_queue.name)
    elsewhere = {"resources": {"database": {"config": {"url": {"env": "ANOTHER_DATABASE"}}}}}
    assert job.execute_in_process(elsewhere, instance).success
    assert client.get(JOB).json()["data"]["last_result"]["processed"] == 1


def test_a_run_records_what_it_made_by_day_and_a_day_can_be_made_again(
    client: Client, instance: dg.DagsterInstance, resource: BackendsResource
) -> None:
    queued(client, photo(), photo(), CUT_SHORT)
    today = datetime.now(UTC).date().isoformat()
    run = jobs.process_image_queue.execute_in_process(instance=instance, resources={"backends": resource})
    assert run.success
    made = instance.fetch_materializations(IMAGES, limit=10).records
    assert [record.partition_key for record in made] == [today]
    assert made[0].asset_materialization is not None
    metadata = made[0].asset_materialization.metadata
    assert (metadata["processed"].value, metadata["failed"].value) == (2, 1)
    examples = str(metadata["examples"].value)
    sheet = re.search(r"\(data:image/webp;base64,([^)]+)\)", examples)
    assert sheet and Image.open(io.BytesIO(base64.b64decode(sheet[1]))).size == (196, 96)
    assert len(re.findall(r"\.webp\)", examples)) == 2, "a link to each"
    shown = client.get(JOB).json()["data"]
    assert (shown["last_run_id"], shown["last_result"]["processed"]) == (run.run_id, 2)

    project = dg.Definitions.merge(definitions, dg.Definitions(resources={"backends": resource}))
    backfill = project.resolve_job_def(jobs.listing_images_backfill.name)
    again = backfill.execute_in_process(instance=instance, partition_key=today)
    metadata = dict(again.asset_materializations_for_node("listing_images")[0].metadata)
    assert (metadata["made again"].value, metadata["processed"].value) == (2, 2)
    assert "errors" not in metadata
    assert "data:image/webp" in str(metadata["examples"].value)
    with pytest.raises(dg.Failure, match="no partition '2019-12-31'; there is one for each day from 2020-01-01"):
        backfill.execute_in_process(instance=instance, tags={"dagster/partition": "2019-12-31"})


def test_a_day_that_got_no_image_is_observed_with_its_failures_and_not_materialized(
    client: Client, instance: dg.DagsterInstance, resource: BackendsResource
) -> None:
    queued(client, CUT_SHORT)
    assert jobs.process_image_queue.execute_in_process(instance=instance, resources={"backends": resource}).success
    assert not instance.fetch_materializations(IMAGES, limit=1).records
    (record,) = instance.fetch_observations(IMAGES, limit=10).records
    assert record.asset_observation is not None
    metadata = record.asset_observation.metadata
    assert (metadata["processed"].value, metadata["failed"].value) == (0, 1)
