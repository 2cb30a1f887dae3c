"""The Dagster side: rounds, partitions, backfills, the sensor, the check, the hand-off to other code locations."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import text

from imgpipe_orchestration.auto_marker import runs
from imgpipe_orchestration.auto_marker.definitions import (
    SCHEDULES,
    auto_marker_sensor,
    definitions,
    marked_images_are_usable,
)
from imgpipe_orchestration.auto_marker.model import JOB, Figures
from imgpipe_orchestration.auto_marker.runs import due
from imgpipe_orchestration.auto_marker.store import QUEUE
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.resources import BackendsResource
from imgpipe_orchestration.storage import job_instances
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed
from imgpipe_orchestration_tests.dagster_side.instances import project, tick, why_not

KEY = dg.AssetKey("clean_images")
DOCUMENT = Path(__file__).parents[2] / "docs" / "auto_marker.md"


@pytest.fixture
def repository(environment: None) -> dg.Definitions:
    return project(definitions)


def run(
    repository: dg.Definitions, instance: dg.DagsterInstance, customer: str = "a", *, asked: bool = False
) -> dg.ExecuteInProcessResult:
    """A run of the sensor, or one that somebody asked for."""
    job = repository.resolve_job_def(JOB)
    if not asked:
        return job.execute_in_process(instance=instance, tags={DUE_ONLY: "true"}, raise_on_error=False)
    instance.add_dynamic_partitions("customers", [customer])
    return job.execute_in_process(instance=instance, partition_key=customer, raise_on_error=False)


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
    assert "its image is not text" in observed["broken"]["error"]
    assert set(instance.get_dynamic_partitions("customers")) == {"a", "b", "broken"}
    job = job_instances.shown(job_instances.recent(services.engine, JOB, customer_id="a")[0])
    assert (job["run_id"], job["images_marked"], job["trigger"]) == (result.run_id, 50, "scheduled")


def test_a_backfill_marks_all_of_its_customers_and_of_nobody_else(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    for customer in ("c1", "c2", "c3"):
        seed(services, customer, 70)
    for customer in ("c1", "c3"):
        assert run(repository, instance, customer, asked=True).success
    assert [marked(services, customer) for customer in ("c1", "c2", "c3")] == [70, 0, 70]
    assert run(repository, instance, "c1", asked=True).success, "green, also with nothing to mark"
    assert events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)["c1"]["marked"] == 0


def test_partitions_come_and_go_with_the_customers(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    seed(services, "here", 1)
    assert run(repository, instance).success
    instance.add_dynamic_partitions("customers", ["gone"])
    assert repository.resolve_job_def("auto_marker_customers").execute_in_process(instance=instance).success
    assert instance.get_dynamic_partitions("customers") == ["here"]


def test_a_launch_without_a_partition_covers_everybody_who_is_due(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    for customer in ("c1", "c2"):
        seed(services, customer, 3)
    assert repository.resolve_job_def("auto_marker").execute_in_process(instance=instance).success
    assert [marked(services, customer) for customer in ("c1", "c2")] == [3, 3]
    assert set(events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)) == {"c1", "c2"}


def next_round_is_due(services: Services) -> None:
    with services.engine.begin() as connection:
        connection.execute(text("update heartbeats set beat_at = now() - interval '6 minutes'"))


def test_the_sensor_asks_for_one_run_for_who_asked_or_who_has_something_to_mark(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    assert why_not(auto_marker_sensor, instance) == "no customer has pending images"
    assert "next round is not due" in why_not(auto_marker_sensor, instance)
    seed(services, "c2")
    next_round_is_due(services)
    for customer in ("c2", "asks, too"):
        if customer != "c2":
            job_instances.create_or_join(services.engine, JOB, customer_id=customer)
        (request,) = tick(auto_marker_sensor, instance).run_requests or []
        assert request.partition_key is None
    job, tags = repository.resolve_job_def(JOB), {DUE_ONLY: "true"}
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert "has not ended" in why_not(auto_marker_sensor, instance)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200", "MongoDB cannot be reached"),
        ("", "No MongoDB is configured"),
    ],
)
def test_without_a_mongodb_nothing_fails_and_what_was_asked_for_says_why_it_waits(
    environment: None,
    services: Services,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    reason: str,
) -> None:
    job_instances.create_or_join(services.engine, JOB, customer_id="c1")
    monkeypatch.setenv("MONGODB_URL", url)
    why = why_not(auto_marker_sensor, instance)
    assert reason in why
    (waiting,) = job_instances.recent(services.engine, JOB)
    assert (waiting.status, waiting.error) == ("queued", why)
    (reason,) = services.claims.held_up()
    assert (reason.queue, reason.error, reason.count) == (JOB, why, 1)
    for schedule in SCHEDULES if not url else ():
        with dg.build_schedule_context(instance=instance, resources={"sensor_backends": BackendsResource()}) as night:
            assert schedule.evaluate_tick(night).run_requests == []
    services.claims.hasten(QUEUE)
    (claim,) = services.claims.claim(QUEUE, "run-1", 1)
    (taken,) = job_instances.recent(services.engine, JOB)
    assert (taken.status, taken.error, claim.failures) == ("running", None, 0)


def test_the_check_names_marked_documents_that_lack_something(services: Services, environment: None) -> None:
    seed(services, "c1", 1, clean_image="x", auto_marked_cleaned=True)
    assert marked_images_are_usable(BackendsResource()).passed
    (bad,) = seed(services, "c1", 1, clean_image="x", auto_marked_cleaned=True, short_summary="")
    failed = marked_images_are_usable(BackendsResource())
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
    next_round_is_due(services)
    seed(services, "a", 1)
    seed(services, "b", 1)
    assert run(repository, instance).success
    asked = dg.evaluate_automation_conditions(elsewhere, instance, cursor=cursor)
    assert asked.get_requested_partitions(dg.AssetKey("voice")) == {"a", "b"}


@pytest.mark.parametrize("told", [False, True], ids=["before it told", "before it wrote that down"])
def test_images_that_a_run_marked_before_it_was_killed_are_told_of_by_the_next(
    services: Services, repository: dg.Definitions, instance: dg.DagsterInstance, told: bool
) -> None:
    seed(services, "a", 3)
    job_ids = []

    def die(figures: Figures) -> None:
        job_ids.append(figures.job_id)
        raise RuntimeError("killed")

    runs.mark_round(services, runs.begin_round(services)[0], "killed", die)
    assert marked(services, "a") == 3
    if told:
        instance.report_runless_asset_event(dg.AssetMaterialization(KEY, partition="a"))
    services.claims.hasten(QUEUE)
    run(repository, instance)
    assert events(instance, dg.DagsterEventType.ASSET_MATERIALIZATION)["a"]["job id"] == str(job_ids[0])
    assert due(services) == "nothing was asked for and the next round is not due"
