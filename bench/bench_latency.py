"""Upload to ready for one photo on an idle stack, with its parts: the sensor, the start of the run, each stage."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from running import bar, rows, running_stack, wait_for

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Stack

STAGES = ("retrieve_file", "ai_visual_analysis", "resize_optimize", "update_callback", "replace_urls")
QUERY = """
    query Run($id: ID!) { runOrError(runId: $id) { ... on Run { creationTime startTime endTime
        stepStats { stepKey startTime endTime } } } }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    arguments = parser.parse_args()
    with running_stack() as stack:
        one(stack, 0)  # what is slow once (first run, first connection) is not what is measured
        found = [one(stack, number) for number in range(1, arguments.rounds + 1)]
    totals = sorted(parts["upload to ready"] for parts in found)
    print(f"{'part':<24}{'median s':>10}{'p95 s':>10}")
    for name in found[0]:
        values = sorted(parts[name] for parts in found)
        print(f"{name:<24}{statistics.median(values):>10.2f}{p95(values):>10.2f}")
    bar("upload_to_ready_median_seconds", statistics.median(totals), 12)


def p95(values: list[float]) -> float:
    return values[min(len(values) - 1, round(0.95 * len(values)))]


def one(stack: Stack, number: int) -> dict[str, float]:
    """One upload; the seconds of each part."""
    user = 10_000 + number
    files = {"profile_image": ("photo.jpg", photos.large(number), "image/jpeg")}
    time.sleep(number % 7)  # another moment of the sensor's interval each time
    began = time.time()
    stack.request("PATCH", "/users/me", headers=stack.user_headers(user), files=files).raise_for_status()
    answered = time.time()
    query = "select extract(epoch from updated_at) from pending_images where user_id = %s and status = 'complete'"
    ready = float(wait_for(lambda: rows(stack, query, user), "the photo", 120)[0][0])
    claim = """
        select a.owner from work_attempts a join media_files f on f.id = a.item_id
        where f.user_id = %s and a.queue = 'media'
    """
    run: Any = wait_for(lambda: finished(stack, rows(stack, claim, user)[0][0]), "the run's end", 60)
    steps = {step["stepKey"]: step["endTime"] - step["startTime"] for step in run["stepStats"]}
    return {
        "request": answered - began,
        "sensor and queue": run["creationTime"] - answered,
        "run start": min(step["startTime"] for step in run["stepStats"]) - run["creationTime"],
        **{stage: steps[stage] for stage in STAGES},
        "upload to ready": ready - began,
    }


def finished(stack: Stack, run_id: str) -> Any:
    url = stack.dagster("/graphql")
    answer = stack.http.post(url, json={"query": QUERY, "variables": {"id": run_id}}, timeout=30).json()
    run = answer["data"]["runOrError"]
    return run if run.get("endTime") else None


if __name__ == "__main__":
    main()
