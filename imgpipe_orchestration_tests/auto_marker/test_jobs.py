"""The Dagster side: rounds, partitions, backfills, the sensor, the check, the hand-off to other code locations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from sqlalchemy import text

from imgpipe_orchestration import resources
from imgpipe_orchestration.auto_marker import schedules, steps
from imgpipe_orchestration.auto_marker.checks import marked_images_are_usable
from imgpipe_orchestration.auto_marker.definitions import definitions
from imgpipe_orchestration.auto_marker.due import due
from imgpipe_orchestration.auto_marker.jobs import auto_marker
from imgpipe_orchestration.auto_marker.model import JOB
from imgpipe_orchestration.auto_marker.sensors import auto_marker_sensor
from imgpipe_orchestration.dagster_side.sensors import PRIORITY
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed

KEY = dg.AssetKey("clean_images")
DOCUMENT = Path(__file__).parents[2] / "docs" / "auto_marker.md"


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `imgpipe up` would put around Dagster."""
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def backends(environment: None) -> Iterator[resources.BackendsResource]:
    backends = resources.build_backends()
    yield backends
    backends.teardown_after_execution(dg.build_init_resource_context())


@pytest.fixture
def repository(environment: None) -> dg.Definitions:
    return dg.Definitions.merge(
        definitions, dg.Definitions(resources=resources.build(), executor=dg.in_process_executor)
    )


def run(repository: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    job = repository.resolve_job_def(JOB)
    return job.execute_in_process({"ops": {"mark_images": {"config": config}}} if config else None, instance)


def events(instance: dg.DagsterInstance, kind: dg.DagsterEventType) -> dict[str, dict[str, Any]]:
    """Per partition of `clean_images`, the metadata of its newest event of a kind."""
    fetch = instance.fetch_materializations if kind == dg.DagsterEventType.ASSET_MATERIALIZATION else None
    records = (fetch or instance.fetch_observations)(KEY, limit=100).records
    found: dict[str, dict[str, Any]] = {}
    for record in reversed(records):
        event = record.asset_materialization or record.asset_observation
        assert event is not None
        found[str(event.partition)] = {name: value.value for name, value in event.metadata.items()}
    return found


def test_a_round_materializes_each_due_customer_and_names_the_broken_one(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    seed(services, "a", 60)
    seed(services, "b", 2)
    seed(services, "broken", 2, image=5)
    result = run(repository, instance)
    assert result.success
    materialized = events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)
    assert {key: (m["found"], m["marked"]) for key, m in materialized.items()} == {"a": (50, 50), "b": (2, 2)}
    observed = events(instance, dg.DagsterEventType.ASSET_OBSERVATION)
    assert "image is a number" in observed["broken"]["error"]
    assert set(instance.get_dynamic_partitions("customers")) == {"a", "b", "broken"}
    (output,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    figures = output.step_output_data.metadata
    totals = {name: figures[name].value for name in ("customers", "found", "marked", "failed")}
    assert totals == {"customers": 3, "found": 54, "marked": 52, "failed": 2}
    table = figures["customers_in_trouble"].value
    assert [record.data["customer"] for record in table.records] == ["broken"]
    job = job_instances.recent(services.engine, JOB, customer_id="a")[0].shown()
    assert (job["run_id"], job["images_marked"], job["trigger"]) == (result.run_id, 50, "scheduled")


@pytest.mark.parametrize(
    "customers", [["c1"], ["c1", "c3"], []], ids=["one customer", "several customers", "all customers"]
)
def test_one_run_backfills_one_several_or_all_customers_without_a_batch_limit(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance, customers: list[str]
) -> None:
    everybody = ["c1", "c2", "c3"]
    for customer in everybody:
        seed(services, customer, 70)
    assert run(repository, instance, customers=customers, everything=True).success
    assert {c for c in everybody if marked(services, c) == 70} == set(customers or everybody)
    assert {c for c in everybody if marked(services, c) == 0} == set(everybody) - set(customers or everybody)


def test_partitions_come_and_go_with_the_customers(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    seed(services, "here", 1)
    assert run(repository, instance).success
    instance.add_dynamic_partitions("customers", ["gone"])
    assert repository.resolve_job_def("auto_marker_customers").execute_in_process(instance=instance).success
    assert instance.get_dynamic_partitions("customers") == ["here"]


def test_a_backfill_without_a_partition_says_that_it_needs_one(
    repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    with pytest.raises(dg.Failure, match="auto_marker_backfill works on one partition at a time"):
        repository.resolve_job_def("auto_marker_backfill").execute_in_process(instance=instance)


def test_the_sensor_asks_for_one_run_when_something_is_due(
    services: Services, backends: resources.BackendsResource, instance: dg.DagsterInstance
) -> None:
    def tick() -> Any:
        with dg.build_sensor_context(instance=instance, resources={"sensor_backends": backends}) as context:
            return auto_marker_sensor(context)

    assert isinstance(tick(), dg.SkipReason)
    job_instances.create_or_join(services.engine, JOB, customer_id="c1")
    assert tick().run_config == {"ops": {"mark_images": {"config": {"scheduled": False}}}}
    assert tick().tags == PRIORITY
    seed(services, "c2")
    with services.engine.begin() as connection:
        connection.execute(text("update heartbeats set beat_at = now() - interval '6 minutes'"))
    assert tick().run_config == {"ops": {"mark_images": {"config": {"scheduled": True}}}}
    instance.create_run_for_job(auto_marker, status=dg.DagsterRunStatus.STARTED)
    assert "has not ended" in tick().skip_message


def test_the_sensor_waits_while_mongodb_is_away(
    backends: resources.BackendsResource,
    services: Services,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_instances.create_or_join(services.engine, JOB, customer_id="c1")
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200")
    with dg.build_sensor_context(instance=instance, resources={"sensor_backends": backends}) as context:
        skipped: Any = auto_marker_sensor(context)
    assert "MongoDB cannot be reached" in skipped.skip_message
    (waiting,) = job_instances.recent(services.engine, JOB)
    assert (waiting.status.value, waiting.error) == ("queued", skipped.skip_message)
    (taken,) = job_instances.start(services.claims, JOB, "run-1", 1)
    assert taken.error is None


def test_without_a_mongodb_nothing_fails_and_what_was_asked_for_says_why_it_waits(
    backends: resources.BackendsResource,
    services: Services,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_instances.create_or_join(services.engine, JOB, customer_id="c1")
    monkeypatch.setenv("MONGODB_URL", "")
    with dg.build_sensor_context(instance=instance, resources={"sensor_backends": backends}) as context:
        skipped: Any = auto_marker_sensor(context)
    assert "No MongoDB is configured" in skipped.skip_message
    assert job_instances.recent(services.engine, JOB)[0].error == skipped.skip_message
    for schedule in (schedules.auto_marker_checks_schedule, schedules.auto_marker_customers_schedule):
        with dg.build_schedule_context(instance=instance, resources={"sensor_backends": backends}) as night:
            assert schedule.evaluate_tick(night).run_requests == []


def test_the_check_names_marked_documents_that_lack_something(
    services: Services, backends: resources.BackendsResource
) -> None:
    seed(services, "c1", 1, clean_image="x", auto_marked_cleaned=True)
    assert marked_images_are_usable(backends).passed
    (bad,) = seed(services, "c1", 1, clean_image="x", auto_marked_cleaned=True, short_summary="")
    failed = marked_images_are_usable(backends)
    assert not failed.passed
    (row,) = failed.metadata["lacking"].value.records
    assert row.data == {"document": str(bad), "customer": "c1", "lacks": "short_summary"}


@pytest.mark.filterwarnings("ignore:Parameter `include_sources`")  # Dagster's own call
def test_another_code_location_hears_of_each_customer_that_got_images(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    """The voice generator's side, as docs/auto_marker.md has it."""
    shown: dict[str, Any] = {}
    exec(DOCUMENT.read_text().split("```python\n")[1].split("```")[0], shown)
    elsewhere = dg.Definitions(assets=[shown["voice"], dg.AssetSpec("clean_images", partitions_def=shown["customers"])])
    seed(services, "a", 1)
    assert run(repository, instance).success
    cursor = dg.evaluate_automation_conditions(elsewhere, instance).cursor
    seed(services, "a", 1)
    seed(services, "b", 1)
    assert run(repository, instance).success
    asked = dg.evaluate_automation_conditions(elsewhere, instance, cursor=cursor)
    assert asked.get_requested_partitions(dg.AssetKey("voice")) == {"a", "b"}


def marked_and_not_told(services: Services, run_id: str) -> UUID | None:
    """A run that ends right after it has marked customer a's images; returns its job."""
    seed(services, "a", 3)
    ended = steps.carry_out(services, steps.plan(services, scheduled=True), run_id, batch_size=50)
    figures = next(ended)
    ended.close()
    assert marked(services, "a") == 3
    return figures.job_id


@pytest.mark.parametrize("told", [False, True], ids=["before it told", "before it wrote that down"])
def test_images_that_a_run_marked_before_it_was_killed_are_told_of_by_the_next(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance, told: bool
) -> None:
    job_id = marked_and_not_told(services, "killed")
    if told:
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition="a"))
    services.claims.release("killed", died=True)
    run(repository, instance)
    assert events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)["a"]["job_id"] == str(job_id)
    assert not due(services).anything
