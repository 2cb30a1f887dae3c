"""The media pipeline against its own engine: photos from `PATCH` to `complete`, over the same photos rendered bare.

Bare is the engine in as many worker processes as there are cores, from bytes in memory to bytes in memory: no HTTP, no
database, no object store, no analysis, no Dagster.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor

from running import bar, rows, running_stack, wait_for

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.devstack.demo.scenario import Stack
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration.imaging.workshop import Workshop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    arguments = parser.parse_args()
    originals = [photos.large(seed) for seed in range(arguments.photos)]
    size = sum(map(len, originals)) / len(originals) / 1e6
    print(f"{len(originals)} photos of 6 megapixels, {size:.2f} MB each, {os.cpu_count()} cores")
    with running_stack() as stack:
        seconds = through_the_stack(stack, originals)
        print_stages(stack)
    alone = bare(originals)
    each = 1000 / len(originals)
    print(f"through the stack {seconds:.1f} s ({each * seconds:.0f} ms a photo), bare {alone:.1f} s")
    bar("pipeline_over_bare_engine", seconds / alone, 1.25)


def through_the_stack(stack: Stack, originals: list[bytes]) -> float:
    """Seconds from the first request to the last `complete`."""

    def upload(number: int) -> None:
        files = {"product_image": ("photo.jpg", originals[number], "image/jpeg")}
        answer = stack.request("PATCH", "/users/me", headers=stack.user_headers(1 + number % 20), files=files)
        answer.raise_for_status()

    began = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, range(len(originals))))
    uploaded = time.monotonic() - began
    query = """
        select count(*) filter (where status = 'complete'), count(*) filter (where status = 'failed')
        from pending_images
    """

    def settled() -> bool:
        complete, failed = rows(stack, query)[0]
        if failed:
            why = rows(stack, "select distinct error from work_items where queue = 'media' and state = 'failed'")
            raise SystemExit(f"{failed} photos failed: {why}")
        return bool(complete == len(originals))

    # Each question opens a connection, on a machine that has no CPU time to spare.
    wait_for(settled, "all photos to be complete", 20.0 * len(originals) + 120, every=1.0)
    total = time.monotonic() - began
    print(f"uploaded after {uploaded:.1f} s, complete after {total:.1f} s")
    return total


def print_stages(stack: Stack) -> None:
    """Where the time went, by the runs' steps."""
    query = """
        select run_id, step_key, extract(epoch from max(timestamp) - min(timestamp))
        from event_logs where dagster_event_type in ('STEP_START', 'STEP_SUCCESS')
        group by run_id, step_key order by min(timestamp)
    """
    for run, step, seconds in rows(stack, query, dagster=True):
        print(f"run {run[:8]} {step}: {seconds:.1f} s")


def bare(originals: list[bytes]) -> float:
    """Seconds the engine alone takes."""
    with Workshop() as shop:
        shop.call(render, originals[0], MEDIA)  # the workers are up
        began = time.monotonic()
        for future in [shop.submit(render, data, MEDIA) for data in originals]:
            future.result()
        return time.monotonic() - began


if __name__ == "__main__":
    main()
