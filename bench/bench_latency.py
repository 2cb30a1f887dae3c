"""Upload to ready for one photo on an idle stack, with its parts: the sensor, the start of the run, the work."""

import statistics
import time

from running import bar, ended, options, rows, running_stack

from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.photos import large


def main() -> None:
    arguments = options(__doc__, rounds=12)
    with running_stack() as stack:
        one(stack, 0)  # what is slow once (first run, first connection) is not what is measured
        found = [one(stack, number) for number in range(1, arguments.rounds + 1)]
    for name in found[0]:
        values = sorted(parts[name] for parts in found)
        p95 = values[min(len(values) - 1, round(0.95 * len(values)))]
        print(f"{name:<20} median {statistics.median(values):6.2f} s, p95 {p95:6.2f} s")
    bar("upload_to_ready_median_seconds", statistics.median(parts["upload to ready"] for parts in found), 8)


def one(stack: Stack, number: int) -> dict[str, float]:
    """One upload; the seconds of each part."""
    user = 10_000 + number
    files = {"profile_image": ("photo.jpg", large(number), "image/jpeg")}
    time.sleep(number % 7)  # another moment of the sensor's interval each time
    began = time.time()
    stack.accepted("PATCH", "/users/me", headers=stack.user_headers(user), files=files)
    answered = time.time()
    query = "select extract(epoch from updated_at) from pending_images where user_id = %s and status = 'complete'"
    # Seldom: each question opens a connection, and the row has the time.
    ready = float(wait_for(lambda: rows(stack, query, user), "the photo", 120, every=1)[0][0])
    claim = """
        select a.owner from work_attempts a join media_files f on f.id = a.item_id
        where f.user_id = %s and a.queue = 'media'
    """
    run = ended(stack, rows(stack, claim, user)[0][0])
    first = min(step["startTime"] for step in run["stepStats"])
    return {
        "request": answered - began,
        "sensor and queue": run["creationTime"] - answered,
        "run start": first - run["creationTime"],
        "work": ready - first,
        "upload to ready": ready - began,
    }


if __name__ == "__main__":
    main()
