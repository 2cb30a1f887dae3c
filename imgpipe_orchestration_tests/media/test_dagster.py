"""What runs of the five assets, or of some of them, do and tell."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from imgpipe_orchestration import resources
from imgpipe_orchestration.dagster_side.assets import DUE_ONLY
from imgpipe_orchestration.media import intake, store
from imgpipe_orchestration.media.definitions import definitions
from imgpipe_orchestration.media.model import temp_key
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import STAGES, today

Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def run(gateway: Gateway, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of today's partition, of some assets or all: what each asset that was materialized tells."""
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)
    around = dg.Definitions(resources=resources.build(), executor=dg.in_process_executor)
    job = dg.Definitions.merge(definitions, around).resolve_job_def("media_pipeline")

    def run(*assets: str, **options: Any) -> dict[str, dict[str, Any]]:
        options = {
            "partition_key": today(),
            "asset_selection": [dg.AssetKey(str(name)) for name in assets] or None,
        } | options
        events = job.execute_in_process(instance=instance, **options).get_asset_materialization_events()
        made = [event.step_materialization_data.materialization for event in events]
        return {one.asset_key.path[-1]: {name: told.value for name, told in one.metadata.items()} for one in made}

    return run


def test_a_run_of_the_first_steps_only_leaves_its_image_to_the_next_run_without_a_stain(
    gateway: Gateway, run: Run
) -> None:
    gateway.upload(456, profile_image=picture())
    assert run(*STAGES[:2])["retrieve_file"]["claimed"] == 1
    (claim,) = gateway.services.claims.claim(store.MEDIA, "next", 10, partition=today())
    assert (claim.failures, claim.losses) == (0, 0)
    gateway.services.claims.release("next")
    run()
    assert gateway.rows("select status from pending_images") == [("complete",)]


def test_a_run_whose_tags_make_no_sense_is_refused(run: Run) -> None:
    """Dagster takes any partition that is given as a tag, as over GraphQL, and is a day at all."""
    days = {"dagster/asset_partition_range_start": "2026-11-01", "dagster/asset_partition_range_end": "2026-11-02"}
    for tags, told in (
        ({"dagster/partition": "2019-12-31"}, "no partition '2019-12-31'; there is one for each day from 2020-01-01"),
        ({"dagster/partition": "2999-01-01"}, "no partition '2999-01-01'; there is one for each day from 2020-01-01"),
        (days, "Backfill the range"),
        ({"dagster/partition": today(), "urgent": "False"}, "tag urgent is 'False'"),
    ):
        with pytest.raises(dg.Failure, match=told):
            run(partition_key=None, tags=tags)


def test_steps_that_are_run_one_by_one_take_an_image_all_the_way(gateway: Gateway, run: Run) -> None:
    gateway.upload(456, profile_image=picture())
    for name in STAGES:
        run(name)
    assert gateway.rows("select status from pending_images") == [("complete",)]
    assert gateway.rows("select failures, losses from work_items where queue = 'media'") == [(0, 0)]


def test_a_run_of_a_finished_day_tells_what_it_ordered_and_no_zeros(gateway: Gateway, run: Run) -> None:
    gateway.upload(456, profile_image=picture(300, 200, seed=1), header_image=picture(300, 200, seed=2))
    first = run()["resize_optimize"]
    assert first["images"] == 2
    smart, page = gateway.settings.smart_media_base_url, f"{gateway.settings.public_base_url}/media"
    sheet = [f"[![{image}]({smart}/{image}?size=thumbnail)]({page}/{image})" for image in (1, 2)]
    assert sorted(str(first["contact sheet"]).split()) == sheet, "no picture itself: it may be deleted"
    assert run() == {
        "retrieve_file": {"images": 0},
        "ai_visual_analysis": {"ordered again": 0},
        "resize_optimize": {"ordered again": 0},
        "update_callback": {"images": 0},
        "replace_urls": {"images": 0},
    }
    gateway.rows("update media_files set recipe = 'old' where id = 1")
    assert run(tags={DUE_ONLY: "true"}) == {}, "the sensor's runs do not look"
    again = run()["resize_optimize"]
    assert again.items() >= {"ordered again": 1, "images": 1}.items()
    assert "contact sheet" in again


def test_what_is_due_of_a_day_before_the_first_is_done_by_todays_run(gateway: Gateway, run: Run) -> None:
    """MEDIA_FIRST_DAY was raised, and the sensor asks for today in that day's place."""
    gateway.upload(456, profile_image=picture())
    assert intake.take_in(gateway.services) == 1
    gateway.rows("update work_items set partition = '2019-12-31' where queue = 'media'")
    assert run(tags={DUE_ONLY: "true"})["resize_optimize"]["images"] == 1
    with transaction(gateway.services.engine) as connection:
        again = [Item(1, "456", "2019-12-31")]
        gateway.services.claims.enqueue(connection, store.REMAKE_VARIANTS, again)
    assert run(tags={DUE_ONLY: "true"})["resize_optimize"]["images"] == 1


def test_a_day_that_is_made_again_tells_what_could_not_be_with_its_reason(gateway: Gateway, run: Run) -> None:
    gateway.upload(731456, profile_image=picture())
    run()
    ((original,),) = gateway.rows("select bulk_path from media_files")
    gateway.services.media_bucket.delete(original)
    gateway.rows("update media_files set recipe = 'old'")
    again = run()["resize_optimize"]
    assert again["images"] == 0 and again["retried"] + again["failed"] == 1
    (row,) = again["errors"].records
    assert row.data["item"] == 1 and "is gone" in row.data["error"]
    assert "731456" not in row.data["error"], "Dagster keeps it after the person's erasure"


def test_a_run_names_what_failed_with_its_reason_in_a_table(gateway: Gateway, run: Run) -> None:
    gateway.upload(456, profile_image=picture())
    ((path,),) = gateway.rows("select image_path from pending_images")
    gateway.services.media_bucket.put(temp_key(path), b"no image", content_type="image/jpeg")
    (row,) = run()["retrieve_file"]["errors"].records
    assert row.data["item"] == 1 and "plain text" in row.data["error"]
