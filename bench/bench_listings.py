"""The queue of listings against a loop that only decodes, resizes and encodes, in as many processes."""

import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from uuid import uuid4

from running import bar, interleaved, options, servers, services

from imgpipe_orchestration.devstack.photos import jpeg
from imgpipe_orchestration.listings import steps, store
from imgpipe_orchestration.listings.runs import Drained, drain
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services


def main() -> None:
    arguments = options(__doc__, rounds=5, images=500)
    originals = [jpeg(name, width=1280) for name in ("astronaut", "coffee", "chelsea", "retina")]
    with servers() as (postgres, s3), services(postgres, s3, "drain", listings_bucket_name="drain") as made:
        made.listings_bucket.ensure()
        ours, bare = drained(made, originals, arguments.images, arguments.rounds)
    print(f"images drained a second: {ours:.1f}, bare {bare:.1f}")
    bar("listings_drain_over_bare", ours / bare, 0.8, at_least=True)


def drained(made: Services, originals: list[bytes], images: int, rounds: int) -> tuple[float, float]:
    """Images a second of the queue, and of the loop."""
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("forkserver")) as pool:

        def queue() -> float:
            fill(made, originals, images)
            drain(made, f"bench-{uuid4()}", done := Drained())
            assert done.processed == images, done
            return images / done.outcome.seconds

        def loop() -> float:
            started = time.monotonic()
            work = [originals[n % len(originals)] for n in range(images)]
            assert sum(1 for _ in pool.map(bare, work)) == images
            return images / (time.monotonic() - started)

        return interleaved(rounds, queue, loop)


def bare(original: bytes) -> int:
    """The engine and nothing else, as polite to other processes as the queue's workers are."""
    return len(steps.make_aside(original).data)


def fill(made: Services, originals: list[bytes], count: int) -> None:
    """Put images into the queue."""
    names = []
    for number in range(count):
        one, data = uuid4(), originals[number % len(originals)]
        key = f"originals/{one}"
        made.listings_bucket.put(key, data, content_type="image/jpeg")
        name = f"bench-{one.hex}.webp"
        names.append(store.NewImage(one, one, None, "Bench", name, "a.jpg", key, "image/jpeg", len(data), 1280, 960))
    with transaction(made.engine) as connection:
        items = store.add(connection, names, held=False)
        made.claims.enqueue(connection, store.QUEUE, items)


if __name__ == "__main__":
    main()
