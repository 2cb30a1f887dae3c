"""From launching a run to its first step: on one machine (`imgpipe up`), and through a Celery worker with --workers."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from running import bar, running_stack, wait_for

from imgpipe_orchestration.devstack.demo.scenario import Stack

JOB = {"repositoryLocationName": "imgpipe", "repositoryName": "__repository__", "jobName": "retention"}
LAUNCH = """
    mutation Launch($job: JobOrPipelineSelector!) { launchRun(executionParams: {selector: $job, runConfigData: {}}) {
        __typename ... on LaunchRunSuccess { run { runId } } } }
"""
RUN = """
    query Run($id: ID!) { runOrError(runId: $id) { ... on Run { status creationTime startTime endTime
        stepStats { startTime } } } }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--workers", action="store_true", help="through Redis and a worker; needs redis-server")
    arguments = parser.parse_args()
    with several_machines() if arguments.workers else running_stack() as stack:
        time.sleep(10)  # the sensors' first ticks
        one(stack)  # what is slow once is not what is measured
        found = [one(stack) for _ in range(arguments.rounds)]
    print(f"{'from launch to':<20}{'median s':>10}{'worst s':>10}")
    for index, name in enumerate(("start of the run", "first step", "end")):
        values = [times[index] for times in found]
        print(f"{name:<20}{statistics.median(values):>10.2f}{max(values):>10.2f}")
    way = "worker" if arguments.workers else "embedded"
    bar(f"launch_to_first_step_{way}_seconds", statistics.median(times[1] for times in found), 1.5)


@contextmanager
def several_machines() -> Iterator[Stack]:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests are no part of the package that is installed
    from imgpipe_orchestration_tests.conftest import open_folder
    from imgpipe_orchestration_tests.scale.stack import machines

    with open_folder() as folder, machines(folder, workers=1, webserver=True) as stack:
        yield stack


def one(stack: Stack) -> tuple[float, float, float]:
    """Launch a run with two small steps; the seconds from there to its start, its first step and its end."""
    asked = ask(stack, LAUNCH, job=JOB)["launchRun"]
    run_id = asked["run"]["runId"]
    run = wait_for(lambda: ended(ask(stack, RUN, id=run_id)["runOrError"]), "the run's end", 60)
    began = run["creationTime"]
    return run["startTime"] - began, min(step["startTime"] for step in run["stepStats"]) - began, run["endTime"] - began


def ended(run: dict[str, Any]) -> dict[str, Any] | None:
    if run["status"] in {"FAILURE", "CANCELED"}:
        raise SystemExit(f"the run ended as {run['status']}")
    return run if run["status"] == "SUCCESS" and run["endTime"] else None


def ask(stack: Stack, query: str, **variables: Any) -> Any:
    body = {"query": query, "variables": variables}
    return stack.http.post(stack.dagster("/graphql"), json=body, timeout=30).json()["data"]


if __name__ == "__main__":
    main()
