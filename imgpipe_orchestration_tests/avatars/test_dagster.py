"""The Dagster side: sensors that look at the right time, the seven steps as assets."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from imgpipe_orchestration.avatars.assets import STAGES
from imgpipe_orchestration.avatars.definitions import avatar_data_sensor, avatar_images_sensor, definitions
from imgpipe_orchestration.avatars.model import Step, TaskStatus
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.dagster_side.instances import project, tick, why_not


def day(ago: int = 0) -> str:
    return (datetime.now(UTC).date() - timedelta(days=ago)).isoformat()


@pytest.fixture
def repository(environment: None) -> dg.Definitions:
    return project(definitions)


def run(repository: dg.Definitions, instance: dg.DagsterInstance, job: str) -> dg.ExecuteInProcessResult:
    """A run of the sensor."""
    tags = {DUE_ONLY: "true"}
    return repository.resolve_job_def(job).execute_in_process(instance=instance, partition_key=day(), tags=tags)


def test_nothing_is_launched_when_nothing_is_due(environment: None, instance: dg.DagsterInstance) -> None:
    for sensor in (avatar_data_sensor, avatar_images_sensor):
        assert why_not(sensor, instance) == "nothing is due"


def test_a_run_without_a_partition_does_what_is_due(
    desk: Desk, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    task = desk.ask(1)
    several = {"dagster/asset_partition_range_start": day(1), "dagster/asset_partition_range_end": day()}
    with pytest.raises(dg.Failure, match="Backfill the range"):
        repository.resolve_job_def("avatar_data").execute_in_process(instance=instance, tags=several)
    assert run(repository, instance, "avatar_data").success
    assert repository.resolve_job_def("avatar_images").execute_in_process(instance=instance).success
    assert desk.task(task).status is TaskStatus.COMPLETED


def test_the_two_jobs_take_a_task_from_request_to_completion_and_show_each_step(
    desk: Desk, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    task = desk.ask(2)
    (asked,) = tick(avatar_data_sensor, instance).run_requests or []
    assert asked.partition_key == day()
    assert not tick(avatar_images_sensor, instance).run_requests
    assert run(repository, instance, "avatar_data").success
    assert desk.task(task).status is TaskStatus.DATA_GENERATED
    desk.ask(1)
    assert "WORKER_INTERVAL" in why_not(avatar_data_sensor, instance), "the next is not asked for before it is over"
    assert tick(avatar_images_sensor, instance).run_requests
    desk.sql("update generation_tasks set created_at = created_at - interval '1 day'")
    assert run(repository, instance, "avatar_images").success
    assert desk.task(task).status is TaskStatus.COMPLETED
    for name, _, _ in STAGES.values():
        (record,) = instance.fetch_materializations(dg.AssetKey(name), limit=1).records
        assert record.asset_materialization is not None
        assert record.partition_key == day(1), "the day the task was asked for"
        assert record.asset_materialization.metadata["people"].value == 2
    assert not tick(avatar_images_sensor, instance).run_requests


def test_people_and_their_pictures_are_backfilled_in_one_run_and_in_this_order(
    desk: Desk, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    both, graph = dg.AssetSelection.assets("avatar_image_prompts", "avatar_personas"), repository.resolve_asset_graph()
    assert both.roots().resolve(graph) == (chosen := both.resolve(graph)), "else Dagster makes one of them only"
    task, job = desk.ask(1), repository.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=list(chosen), partition_key=day()).success
    assert [person.step for person in desk.people(task)] == [Step.PROMPT]


def test_a_step_can_be_materialised_alone_and_says_what_it_paid(
    desk: Desk, repository: dg.Definitions, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODERATION", "flag")
    task = desk.with_people(1)
    job = repository.resolve_job_def("avatar_images")
    for step, calls in ((Step.PROMPT, 2), (Step.BASE, 1)):
        key = dg.AssetKey(STAGES[step][0])
        assert job.execute_in_process(instance=instance, asset_selection=[key], partition_key=day()).success
        assert desk.people(task)[0].step == step
        (record,) = instance.fetch_materializations(key, limit=1).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["calls"].value == calls, "with the verdict on the brief"
