"""Photos through the running stack: upload, sensor, run, variants, smart URL; and the CLI backfill."""

import io
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from PIL import Image

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import ROOT, Stack
from imgpipe_orchestration_tests.media.conftest import picture


def smart(stack: Stack, user: int) -> bool:
    return str(stack.me(user)["profile_image_path"]).startswith("http")


def finished(stack: Stack, user: int) -> bool:
    return stack.rows("select 1 from pending_images where user_id = %s and status <> 'complete'", user) == []


def test_an_upload_becomes_a_served_image_by_itself(stack: Stack) -> None:
    user = stack.new_user()
    stack.upload(user, profile_image=picture(1500, 1000, seed=user), logo_image=picture(400, 300, seed=user + 1))
    wait_for(lambda: smart(stack, user) and finished(stack, user), "the images to be complete")
    answer = stack.session.get(stack.me(user)["profile_image_path"], headers={"Accept": "image/avif"}, timeout=30)
    assert Image.open(io.BytesIO(answer.content)).size == (1200, 800)
    runs = wait_for(
        lambda: [run for run in stack.runs("media_pipeline") if run["status"] == "SUCCESS"], "a finished run"
    )
    # Our own tags are for the machinery: Dagster shows people none of them, and our pages' links find runs by them.
    shown = {tag["key"] for tag in runs[0]["tags"]}
    assert {key for key in shown if not key.startswith("dagster/")} == set()
    ours = {".dagster/due_only": "true", ".dagster/group": "media", ".dagster/pipeline": "media_pipeline_due"}
    for key, value in ours.items():
        assert runs[0] in stack.runs("media_pipeline", tags=[{"key": key, "value": value}])


@pytest.mark.slow
def test_what_is_deleted_is_purged_by_itself_and_the_nightly_run_finds_nothing_left(stack: Stack) -> None:
    user = stack.new_user()
    stack.upload(user, product_image=picture(600, 400, seed=user))
    wait_for(lambda: finished(stack, user), "the image to be complete")
    ((media_id,),) = stack.rows("select id from media_files where user_id = %s", user)
    url = f"{stack.gateway}/api/media/{media_id}?purge=true"
    assert stack.session.delete(url, headers=stack.as_user(user), timeout=30).status_code == 202
    purged = "select 1 from deletions where kind = 'media' and item = %s and purged_at is not null"
    wait_for(lambda: stack.rows(purged, media_id), "the purge")
    launched = stack.dagster("job", "launch", "-w", "workspace.yaml", "-j", "purge")
    assert launched.returncode == 0, launched.stderr
    query = """{ assetNodes(assetKeys: [{path: ["purge"]}]) { assetChecksOrError { ... on AssetChecks {
        checks { name executionForLatestMaterialization { status evaluation { success } } } } } } }"""

    def checked() -> Any:
        (check,) = stack.graphql(query)["assetNodes"][0]["assetChecksOrError"]["checks"]
        return check["name"] == "nothing_left" and (check["executionForLatestMaterialization"] or {}).get("evaluation")

    assert wait_for(checked, "the check") == {"success": True}


_PAGE = (ROOT / "docs" / "media.md").read_text()
BACKFILLS = re.findall(r"^    dagster (.+)$", _PAGE, re.MULTILINE)
"""The page's commands for making images again."""


@pytest.mark.slow
@pytest.mark.parametrize("command", BACKFILLS)
def test_the_documents_commands_make_again_what_is_outdated(stack: Stack, command: str) -> None:
    user = stack.new_user()
    stack.upload(user, profile_image=picture(600, 400, seed=user))
    wait_for(lambda: finished(stack, user), "the image to be complete")
    wait_for(lambda: all(run["status"] in {"SUCCESS", "FAILURE"} for run in stack.runs("media_pipeline")), "idle runs")
    ((media_id, day),) = stack.rows(
        "update media_files set recipe = 'old' where user_id = %s returning id, upload_day", user
    )
    stack.rows("update media_ai_analysis set version = 'old' where media_id = %s returning 1", media_id)
    answer = stack.dagster(*command.replace('"$today"', str(day)).split())
    assert answer.returncode == 0, answer.stdout + answer.stderr

    selected = re.search(r"--select (\w+)", command)
    wanted = {selected[1]} if selected else {"resize_optimize", "ai_visual_analysis"}
    query = "select f.recipe, a.version from media_files f join media_ai_analysis a on f.id = media_id where f.id = %s"

    def made_again() -> set[str]:
        recipe, version = stack.rows(query, media_id)[0]
        return {name for name, is_ in (("resize_optimize", recipe), ("ai_visual_analysis", version)) if is_ != "old"}

    wait_for(lambda: made_again() >= wanted, "the backfill")
    assert made_again() == wanted
    if "resize_optimize" in wanted:
        assert stack.rows("select 1 from media_variants where media_id = %s and recipe = 'old'", media_id) == []


@contextmanager
def sensor_stopped(stack: Stack) -> Iterator[None]:
    """`pending_images_sensor` off, and no run of the pipeline under way."""
    of = {"repositoryName": "__repository__", "repositoryLocationName": "imgpipe"}
    of |= {"sensorName": "pending_images_sensor"}
    start = "mutation Start($of: SensorSelector!) { startSensor(sensorSelector: $of) { ... on Sensor { SENSOR } } }"
    stop = "mutation Stop($id: String!) { stopSensor(id: $id) { __typename } }"
    state = stack.graphql(start.replace("SENSOR", "sensorState { id }"), of=of)["startSensor"]["sensorState"]

    look = """query Look($of: SensorSelector!) { sensorOrError(sensorSelector: $of) { ... on Sensor {
        sensorState { status ticks(limit: 1) { status } } } } }"""
    stopped_since = time.monotonic()

    def idle() -> bool:
        # Dagster's daemon may lose the click: a tick of the same moment writes back the state that it read before.
        nonlocal stopped_since
        now = stack.graphql(look, of=of)["sensorOrError"]["sensorState"]
        if now["status"] != "STOPPED" or any(tick["status"] == "STARTED" for tick in now["ticks"]):
            stack.graphql(stop, id=state["id"])
            stopped_since = time.monotonic()
        ended = all(run["status"] in {"SUCCESS", "FAILURE", "CANCELED"} for run in stack.runs("media_pipeline"))
        return ended and time.monotonic() - stopped_since > 3

    wait_for(idle, "the sensor to stop")
    try:
        yield
    finally:
        stack.graphql(start.replace("SENSOR", "name"), of=of)


def backfilled(stack: Stack, asset: str, *days: str) -> list[dict[str, Any]]:
    """Materializations by a backfill of one asset over these days, as the UI starts it: what each says."""
    launch = """
        mutation Launch($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }
    """
    params = {"assetSelection": [{"path": [asset]}], "partitionNames": list(days)}
    backfill = stack.graphql(launch, params=params)["launchPartitionBackfill"]["backfillId"]
    query = """
        query Runs($filter: RunsFilter) { runsOrError(filter: $filter) { ... on Runs { results { status
            eventConnection(afterCursor: null) { events { ... on MaterializationEvent { assetKey { path }
            partition metadataEntries { label ... on IntMetadataEntry { intValue } } } } } } } } }
    """

    def ended() -> list[dict[str, Any]] | None:
        runs = stack.graphql(query, filter={"tags": [{"key": "dagster/backfill", "value": backfill}]})
        results = runs["runsOrError"]["results"]
        over = len(results) == len(days) and all(run["status"] in {"SUCCESS", "FAILURE"} for run in results)
        return results if over else None

    runs = wait_for(ended, f"the backfill of {asset}")
    assert {run["status"] for run in runs} == {"SUCCESS"}
    events = [event for run in runs for event in run["eventConnection"]["events"] if event]
    assert [event["assetKey"]["path"] for event in events] == [[asset]] * len(days)
    return [{entry["label"]: entry.get("intValue") for entry in event["metadataEntries"]} for event in events]


@pytest.mark.slow
def test_a_backfill_of_one_stage_gives_back_what_it_took(stack: Stack) -> None:
    """Dagster starts its runs without step keys: the selection is what says which stages they have."""
    users = [stack.new_user() for _ in range(5)]
    items = """
        select w.state, count(*) from work_items w join media_files f on f.id = w.item_id
        where w.queue = 'media' and f.user_id = any(%s) group by w.state
    """
    resized = """
        select c.resize_optimize, count(*) from processing_checklist c join media_files f on f.id = c.media_id
        where f.user_id = any(%s) group by c.resize_optimize
    """
    with sensor_stopped(stack):
        for user in users:
            stack.upload(user, profile_image=picture(600, 400, seed=user))
        spread = """
            update pending_images set created_at = now() - interval '1 day' * (user_id = any(%s))::int
            where user_id = any(%s) returning (created_at at time zone 'UTC')::date
        """
        yesterday, today = sorted({day for (day,) in stack.rows(spread, users[:2], users)})
        told = backfilled(stack, "retrieve_file", str(yesterday), str(today))
        assert sum(one["images"] for one in told) == 5
        assert stack.rows(items, users) == [("waiting", 5)]
        backfilled(stack, "resize_optimize", str(yesterday), str(today))
        assert stack.rows(resized, users) == [("pending", 5)], "they wait for an earlier stage"
        assert stack.rows(items, users) == [("waiting", 5)]
        backfilled(stack, "ai_visual_analysis", str(yesterday), str(today))
        backfilled(stack, "resize_optimize", str(yesterday), str(today))
        assert stack.rows(resized, users) == [("completed", 5)]
        assert stack.rows(items, users) == [("waiting", 5)]
    wait_for(lambda: all(finished(stack, user) for user in users), "the rest of the way")
    lost = """
        select a.outcome from work_attempts a join media_files f on f.id = a.item_id
        where a.queue = 'media' and f.user_id = any(%s) and a.outcome = 'lost'
    """
    assert stack.rows(lost, users) == []
