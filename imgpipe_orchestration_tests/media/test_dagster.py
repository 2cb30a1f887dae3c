"""What runs of the five assets, or of some of them, do and tell."""

from __future__ import annotations

import dagster as dg
import pytest

from imgpipe_orchestration import resources
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.media import store
from imgpipe_orchestration.media.definitions import definitions
from imgpipe_orchestration.media.model import temp_key
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today

STEPS = ["retrieve_file", "ai_visual_analysis", "resize_optimize"]


@pytest.fixture
def repository(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)
    return dg.Definitions.merge(
        definitions, dg.Definitions(resources=resources.build(), executor=dg.in_process_executor)
    )


def made(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetMaterialization]:
    """The materializations of a run, by asset."""
    events = result.get_asset_materialization_events()
    found = [event.step_materialization_data.materialization for event in events]
    return {one.asset_key.path[-1]: one for one in found}


def test_a_run_of_the_first_steps_only_leaves_its_image_to_the_next_run_without_a_stain(
    gateway: Gateway, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    gateway.upload(456, profile_image=picture())
    job = repository.resolve_job_def("media_pipeline")
    day = today()
    chosen = [dg.AssetKey(name) for name in STEPS[:2]]
    result = job.execute_in_process(instance=instance, partition_key=day, asset_selection=chosen)
    first = made(result)["retrieve_file"]
    assert first.metadata["claimed"].value == 1
    (claim,) = gateway.services.claims.claim(store.MEDIA, "next", 10, partition=day)
    assert (claim.failures, claim.losses) == (0, 0)
    gateway.services.claims.release("next")
    rest = job.execute_in_process(instance=instance, partition_key=day)
    assert rest.success
    assert [tuple(row) for row in gateway.rows("select status from pending_images")] == [("complete",)]


@pytest.mark.parametrize("partition", ["2019-12-31", "2999-01-01"])
def test_a_day_that_there_is_not_is_told_as_such(
    repository: dg.Definitions, instance: dg.DagsterInstance, partition: str
) -> None:
    """Dagster takes any that is given as a tag, as over GraphQL, and is a day at all."""
    with pytest.raises(dg.Failure, match=f"no partition '{partition}'; there is one for each day from 2020-01-01"):
        repository.resolve_job_def("media_pipeline").execute_in_process(
            instance=instance, tags={"dagster/partition": partition}
        )


def test_steps_that_are_run_one_by_one_take_an_image_all_the_way(
    gateway: Gateway, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    gateway.upload(456, profile_image=picture())
    job = repository.resolve_job_def("media_pipeline")
    for name in [*STEPS, "update_callback", "replace_urls"]:
        job.execute_in_process(instance=instance, partition_key=today(), asset_selection=[dg.AssetKey(name)])
    assert [tuple(row) for row in gateway.rows("select status from pending_images")] == [("complete",)]
    ((failures, losses),) = gateway.rows("select failures, losses from work_items where queue = 'media'")
    assert (failures, losses) == (0, 0)


def test_a_run_of_a_finished_day_tells_what_is_up_to_date_and_no_zeros(
    gateway: Gateway, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    gateway.upload(456, profile_image=picture(300, 200, seed=1), header_image=picture(300, 200, seed=2))
    job = repository.resolve_job_def("media_pipeline")
    day = today()

    def run(**tags: str) -> dict[str, dict[str, object]]:
        result = job.execute_in_process(instance=instance, partition_key=day, tags=tags)
        return {
            asset: {name: entry.value for name, entry in one.metadata.items()} for asset, one in made(result).items()
        }

    first = run()["resize_optimize"]
    assert (first["images"], first["images of day"], first["up to date"]) == (2, 2, 2)
    for image in (1, 2):
        assert f"[{image}]({gateway.settings.public_base_url}/media/{image})" in str(first["contact sheet"])
    of_day = {"images of day": 2, "up to date": 2}
    assert run() == {
        "retrieve_file": of_day,
        "ai_visual_analysis": {**of_day, "ordered again": 0},
        "resize_optimize": {**of_day, "ordered again": 0},
        "update_callback": of_day,
        "replace_urls": {"images": 0},
    }
    with gateway.services.engine.begin() as connection:
        connection.exec_driver_sql("update media_files set recipe = 'old' where id = 1")
    assert run(**{DUE_ONLY: "true"}) == {}, "the sensor's runs do not look"
    again = run()["resize_optimize"]
    assert again.items() >= {**of_day, "ordered again": 1, "again done": 1}.items()
    assert "images" not in again and "contact sheet" in again


def test_a_day_that_is_made_again_tells_what_could_not_be_with_its_reason(
    gateway: Gateway, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    gateway.upload(456, profile_image=picture())
    job = repository.resolve_job_def("media_pipeline")
    job.execute_in_process(instance=instance, partition_key=today())
    ((original,),) = gateway.rows("select bulk_path from media_files")
    gateway.services.media_bucket.delete(original)
    with gateway.services.engine.begin() as connection:
        connection.exec_driver_sql("update media_files set recipe = 'old'")
    result = job.execute_in_process(instance=instance, partition_key=today())
    again = made(result)["resize_optimize"]
    told = {name: again.metadata[f"again {name}"].value for name in ("done", "retried", "failed")}
    assert told["done"] == 0 and told["retried"] + told["failed"] == 1
    (row,) = again.metadata["again errors"].value.records
    assert row.data["item"] == 1 and "is gone" in row.data["error"]


def test_a_run_names_what_failed_with_its_reason_in_a_table(
    gateway: Gateway, repository: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    gateway.upload(456, profile_image=picture())
    ((path,),) = gateway.rows("select image_path from pending_images")
    gateway.services.media_bucket.put(temp_key(path), b"no image", content_type="image/jpeg")
    day = today()
    result = repository.resolve_job_def("media_pipeline").execute_in_process(instance=instance, partition_key=day)
    first = made(result)["retrieve_file"]
    (row,) = first.metadata["errors"].value.records
    assert row.data["item"] == 1 and "plain text" in row.data["error"]
