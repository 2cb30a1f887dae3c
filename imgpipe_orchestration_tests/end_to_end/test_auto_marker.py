"""The auto-marker in the running stack: by the clock, on demand, through a dead MongoDB, and from the command line."""

from collections.abc import Iterator
from typing import Any

import pymongo
import pytest
from pymongo.database import Database

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack

PARTITIONS = """
    query Partitions { assetNodeOrError(assetKey: {path: ["clean_images"]}) { ... on AssetNode {
        assetMaterializations(limit: 50) {
            partition runId metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }
"""


@pytest.fixture
def ichat(stack: Stack) -> Iterator[Database[dict[str, Any]]]:
    with pymongo.MongoClient[dict[str, Any]](stack.environment["MONGODB_URL"]) as client:
        yield client.get_default_database(default="ichat")


def seed(ichat: Database[dict[str, Any]], customer: str, count: int, **fields: Any) -> None:
    rows = [
        {"customer_id": customer, "image": f"https://example.com/{n}.jpg", "short_summary": "news", **fields}
        for n in range(count)
    ]
    ichat["news_document"].insert_many(rows)


def marked(ichat: Database[dict[str, Any]], customer: str) -> int:
    rows = list(ichat["news_document"].find({"customer_id": customer}))
    good = [row for row in rows if row.get("auto_marked_cleaned") is True and row.get("clean_image") == row["image"]]
    return len(good)


def trigger(stack: Stack, customer: str) -> dict[str, Any]:
    answer = stack.session.post(
        f"http://127.0.0.1:{stack.environment['FLASK_PORT']}/api/jobs/trigger",
        headers={"X-Customer-ID": customer.encode(), "X-User-ID": "user_456"},
        timeout=30,
    )
    assert answer.status_code == 202, answer.text
    body: dict[str, Any] = answer.json()
    return body


def job(stack: Stack, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.session.get(f"{stack.gateway}/api/jobs/{job_id}", timeout=30).json()
    return found


def clock_round(stack: Stack) -> None:
    """Make the next scheduled round due now."""
    stack.rows("update heartbeats set beat_at = now() - interval '1 hour' where name ~ 'auto.marker' returning 1")


@pytest.mark.slow
def test_a_trigger_is_picked_up_within_seconds_and_its_run_is_in_dagster(stack: Stack, ichat: Any) -> None:
    customer = "Kunde 7/ä,|$x.y..."
    seed(ichat, customer, 3)
    asked = trigger(stack, customer)
    done = wait_for(lambda: (found := job(stack, asked["job_id"]))["status"] == "completed" and found, "the job")
    assert (done["images_marked"], done["user_id"], done["customer_id"]) == (3, "user_456", customer)
    assert marked(ichat, customer) == 3
    assert done["run_id"] in {run["runId"] for run in stack.runs("auto_marker")}
    mine = stack.session.get(
        f"{stack.gateway}/api/jobs?limit=10", headers={"X-Customer-ID": customer.encode()}, timeout=30
    )
    assert [each["job_id"] for each in mine.json()["jobs"]] == [asked["job_id"]]


@pytest.mark.slow
def test_a_round_by_the_clock_marks_who_is_on_and_names_who_is_broken(stack: Stack, ichat: Any) -> None:
    for customer in ("e2e-fine", "e2e-off"):
        seed(ichat, customer, 4)
    seed(ichat, "e2e-broken", 2, image={"url": "x"})
    answer = stack.session.put(
        f"{stack.gateway}/api/customers/e2e-off/image-config", json={"auto_mark_cleaned": False}, timeout=30
    )
    assert answer.status_code == 200
    clock_round(stack)
    wait_for(lambda: marked(ichat, "e2e-fine") == 4, "the round")

    def finished() -> dict[str, Any]:
        jobs = stack.session.get(f"{stack.gateway}/api/jobs?limit=50", timeout=30).json()["jobs"]
        ours = {each["customer_id"]: each for each in jobs if str(each["customer_id"]).startswith("e2e-")}
        return ours if {"e2e-fine", "e2e-broken"} <= {c for c, j in ours.items() if j["finished_at"]} else {}

    jobs = wait_for(finished, "the job instances")
    assert (jobs["e2e-fine"]["status"], jobs["e2e-fine"]["trigger"]) == ("completed", "scheduled")
    assert (jobs["e2e-broken"]["status"], jobs["e2e-broken"]["images_failed"]) == ("failed", 2)
    assert "e2e-off" not in jobs and marked(ichat, "e2e-off") == 0
    nodes = wait_for(
        lambda: [
            m
            for m in stack.graphql(PARTITIONS)["assetNodeOrError"]["assetMaterializations"]
            if m["partition"] == "e2e-fine"
        ],
        "the materialization",
    )
    figures = {entry["label"]: entry.get("intValue") for entry in nodes[0]["metadataEntries"]}
    assert (figures["found"], figures["marked"]) == (4, 4)
    health = stack.session.get(f"http://127.0.0.1:{stack.environment['FLASK_PORT']}/health", timeout=30)
    assert (health.status_code, health.json()["checks"]["mongodb"]) == (200, "ok")
    assert health.json()["checks"]["last_tick"].startswith("20")


@pytest.mark.slow
def test_the_command_line_backfills_partitions(stack: Stack, ichat: Any) -> None:
    seed(ichat, "e2e-part", 1)
    trigger(stack, "e2e-part")
    wait_for(lambda: marked(ichat, "e2e-part") == 1, "the partition to be known")
    wait_for(lambda: all(run["status"] in {"SUCCESS", "FAILURE"} for run in stack.runs("auto_marker")), "idle runs")
    seed(ichat, "e2e-part", 70)
    answer = stack.dagster(
        "job",
        "backfill",
        "-w",
        "workspace.yaml",
        "-j",
        "auto_marker",
        "--partitions",
        "e2e-part",
        "--noprompt",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    wait_for(lambda: marked(ichat, "e2e-part") == 71, "the backfill")
