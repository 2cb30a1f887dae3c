"""The media pipeline against its own engine: photos from `PATCH` to `complete`, over the same photos rendered bare.

Bare is the engine in as many worker processes as there are cores, from bytes in memory to bytes in memory: no HTTP, no
database, no object store, no analysis, no Dagster. Then other photos go through the same stack while partners are as
slow as real ones.
"""

import os
import time
from contextlib import closing

from running import bar, options, render_by_the_stack, stack_with_partners, standins

from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration.imaging.workshop import Workshop
from imgpipe_orchestration_tests.photos import large

SLOW = {"openai.responses": 3.0, "google": 0.8, "openai.embeddings": 0.3}
"""Seconds an answer takes."""


def main() -> None:
    arguments = options(__doc__, photos=200)
    count = arguments.photos
    originals, others, more = ([large(1000 * lot + n) for n in range(count)] for lot in range(3))
    with stack_with_partners() as stack:
        whole = render_by_the_stack(stack, originals)
        instant = render_by_the_stack(stack, others)
        standins(stack, "POST", "delays", SLOW)
        slow = render_by_the_stack(stack, more)
    alone = bare(originals)
    print(f"{count} photos of 6 megapixels on {os.cpu_count()} cores: {whole:.1f} s, bare {alone:.1f} s")
    print(f"as many others: {instant:.1f} s with instant partners, {slow:.1f} s with slow ones")
    bar("pipeline_over_bare_engine", whole / alone, 1.2)
    bar("pipeline_slow_partners_over_instant", slow / instant, 1.1)


def bare(originals: list[bytes]) -> float:
    """Seconds the engine alone takes."""
    with closing(Workshop()) as shop:
        shop.call(render, originals[0], MEDIA)  # the workers are up
        began = time.monotonic()
        for future in [shop.submit(render, data, MEDIA) for data in originals]:
            future.result()
        return time.monotonic() - began


if __name__ == "__main__":
    main()
