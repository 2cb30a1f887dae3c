"""What Dagster's catalogue and the timeline show of the whole project."""

import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from imgpipe_orchestration.dagster_side.run_tags import GROUP_TAG, PIPELINE_TAG
from imgpipe_orchestration.dagster_side.sensors import PRIORITY
from imgpipe_orchestration.definitions import defs
from imgpipe_orchestration.gateway.pages.subjects import ABOUT

ROOT = Path(__file__).parents[1]
GRAPH = defs.resolve_asset_graph()
FEATURES = {"auto_marker", "avatars", "listings", "media", "vision_reports"}
GROUPS = {*FEATURES, "lifecycle", "moderation"}
SOURCES = {
    "deletions": "lifecycle",
    "generation_tasks": "avatars",
    "image_queue": "listings",
    "news_document": "auto_marker",
    "pending_images": "media",
    "evaluation_set": "media",
    "submissions": "moderation",
    "vision_reports/analyses": "vision_reports",
}


@pytest.mark.parametrize("key", sorted(GRAPH.get_all_asset_keys()), ids=dg.AssetKey.to_user_string)
def test_every_asset_says_what_it_is_and_whose(key: dg.AssetKey) -> None:
    asset = GRAPH.get(key)
    assert asset.description
    assert asset.owners == ["team:images"]
    assert asset.group_name in GROUPS


def test_everything_that_is_made_comes_from_a_source_of_its_feature_and_nobody_elses() -> None:
    assets = {key.to_user_string(): GRAPH.get(key) for key in GRAPH.get_all_asset_keys()}
    assert {name: asset.group_name for name, asset in assets.items() if not asset.parent_keys} == SOURCES
    for asset in assets.values():
        assert {GRAPH.get(parent).group_name for parent in asset.parent_keys} <= {asset.group_name}


def test_nobody_can_materialize_a_source() -> None:
    assert not any(GRAPH.get(dg.AssetKey.from_user_string(name)).is_executable for name in SOURCES)


def test_every_job_has_a_pipeline_of_its_own_by_which_its_runs_are_limited() -> None:
    jobs = [job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")]
    assert [job.name for job in jobs if not job.tags.get(PIPELINE_TAG)] == []
    assert len({job.tags[PIPELINE_TAG] for job in jobs}) == len(jobs)  # else a backfill keeps what is due waiting
    named_so = {job.name for job in jobs if job.tags[PIPELINE_TAG] == job.name}
    assert named_so >= {"purge", "moderation"}, "their sensors count runs by it"
    for file in (ROOT / "dagster.yaml", ROOT / "deploy" / "dagster.yaml"):
        read = yaml.safe_load(file.read_text())["concurrency"]
        limits = {limit["key"]: limit["limit"] for limit in read["runs"]["tag_concurrency_limits"]}
        assert read["pools"]["default_limit"] >= limits[PIPELINE_TAG] + limits["dagster/backfill"]


def test_every_sensor_is_switched_on_from_the_start() -> None:
    assert {one.default_status for one in defs.get_repository_def().sensor_defs} == {dg.DefaultSensorStatus.RUNNING}


def test_every_schedule_has_a_time_zone_and_its_runs_do_not_stand_behind_those_of_sensors() -> None:
    schedules = defs.get_repository_def().schedule_defs
    assert {schedule.execution_timezone for schedule in schedules} == {"UTC"}
    assert {schedule.default_status for schedule in schedules} == {dg.DefaultScheduleStatus.RUNNING}
    assert all(PRIORITY.items() <= schedule.tags.items() for schedule in schedules)


def test_the_links_of_the_pages_find_the_runs_and_assets_of_each_pipeline() -> None:
    groups = {job.name: job.tags.get(GROUP_TAG) for job in defs.resolve_all_job_defs() if not job.name.startswith("__")}
    assert {name for name, group in groups.items() if group is None} == {"garbage_collection", "retention"}
    assert set(groups.values()) - {None} == GROUPS
    assert {about.name for about in ABOUT} == FEATURES


def test_whoever_loads_them_is_told_nothing_of_dagsters_own_betas() -> None:
    load = "from imgpipe_orchestration.definitions import defs; defs.get_repository_def()"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, timeout=120, check=True)
    assert "BetaWarning" not in done.stderr


def test_both_of_dagsters_commands_load_the_same_module_by_the_same_name() -> None:
    (location,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    named = {"module_name": project["code_location_target_module"], "location_name": project["code_location_name"]}
    assert location == {"python_module": named}
