"""Avatars: how near the bound that the providers set.

The providers are the stand-ins with fixed delays. The bound is what delays and limits alone allow: one question for the
people, one for the first prompt, then all pictures in as many waves as the limit makes.
"""

import math
import statistics
import time
from dataclasses import replace

import requests
from running import bar, options, servers, services

from imgpipe_orchestration.avatars import records, runs, store
from imgpipe_orchestration.avatars.lanes import Lanes
from imgpipe_orchestration.avatars.model import TaskRequest, TaskStatus
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.storage.work import Shares
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.standins.server import partners

FLOWISE_SECONDS = 0.2
IMAGE_SECONDS = 0.5
LIMIT = 5


def main() -> None:
    arguments = options(__doc__, people=12, rounds=3)
    with (
        servers(durable=False) as (postgres, s3),
        partners(postgres.folder.parent) as faulty,
    ):
        delays = {"flowise": FLOWISE_SECONDS, "openai": IMAGE_SECONDS}
        requests.post(f"{faulty.url}/_standin/delays", json=delays, timeout=5).raise_for_status()
        settings = {
            "openai_api_key": "bench",
            "openai_base_url": f"{faulty.url}/openai/v1",
            "flowise_base_url": f"{faulty.url}/flowise",
            "multithread_flowise": LIMIT + 1,  # one place is for other tasks
        }
        with services(postgres, s3, "avatars", **settings) as made:
            made.avatars_bucket.ensure()
            # The same people each time: after the first run the stand-ins have their pictures drawn already, so that
            # only the delays are theirs and the processor is ours.
            wall = statistics.median([seconds(made, arguments.people) for _ in range(arguments.rounds + 1)][1:])
    bound = 2 * FLOWISE_SECONDS + math.ceil(2 * arguments.people / LIMIT) * IMAGE_SECONDS
    print(f"{arguments.people} people, {LIMIT} calls at once: {wall:.2f} s, bound {bound:.2f} s")
    bar("avatars_wall_over_bound", wall / bound, 1.25)


def seconds(made: Services, people: int) -> float:
    """From the request to the last URL."""
    began = time.perf_counter()
    with transaction(made.engine) as connection:
        task = store.create(connection, made.claims, TaskRequest(count=people, seed=1))
    runs.run_data(made, f"data {task.id}")
    lanes = replace(Lanes.of(made.settings), images=Shares(LIMIT + 1))
    runs.run_images(made, f"images {task.id}", lanes=lanes)
    took = time.perf_counter() - began
    with transaction(made.engine) as connection:
        task = records.get(connection, task.id)
    if task.status is not TaskStatus.COMPLETED or task.error_log:
        raise SystemExit(f"the task is {task.status}: {task.error_log or task.waiting_for}")
    return took


if __name__ == "__main__":
    main()
