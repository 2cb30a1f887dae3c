"""The listings pipeline against the bare parts it is made of, on real servers of this machine.

uploads a second      the gateway : a FastAPI endpoint that only writes the same bytes to S3, with boto3
drained a second      the queue : decode, resize and encode in a loop, in as many processes
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from fastapi import FastAPI, UploadFile
from running import bar, interleaved, options, servers, services, wait_for

from imgpipe_orchestration.devstack.photos import jpeg
from imgpipe_orchestration.devstack.ports import LOOPBACK, free_port, listening
from imgpipe_orchestration.listings import steps, store
from imgpipe_orchestration.listings.drain import drain
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import load
from imgpipe_orchestration.storage.rows import transaction

HERE = Path(__file__).parent
CLIENTS = 8
BOUNDARY = "bench"
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="listing_title"\r\n\r\nA bike\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
    "Content-Type: image/jpeg\r\n\r\n"
)


def main() -> None:
    arguments = options(__doc__, rounds=5, seconds=3.0, images=500)
    originals = [jpeg(name, width=1280) for name in ("astronaut", "coffee", "chelsea", "retina")]
    ports = {"gateway_port": free_port(), "flask_port": free_port()}
    with servers() as (postgres, s3):
        with services(postgres, s3, "uploads", listings_bucket_name="uploads", **ports) as made:
            made.listings_bucket.ensure()
            bare_port, body = free_port(), HEAD.encode() + originals[0] + f"\r\n--{BOUNDARY}--\r\n".encode()
            gateway = server(made, ports["gateway_port"], "-m", "imgpipe_orchestration.gateway")
            bare_app = ("-m", "uvicorn", "--app-dir", str(HERE), "--port", str(bare_port), "--no-access-log")
            with gateway, server(made, bare_port, *bare_app, "bench_listings:app"):
                ours, bare = interleaved(
                    arguments.rounds,
                    lambda: rate(ports["gateway_port"], body, arguments.seconds),
                    lambda: rate(bare_port, body, arguments.seconds),
                )
        print(f"uploads a second: {ours:.0f}, bare {bare:.0f}")
        bar("listings_uploads_over_bare", ours / bare, 0.6, at_least=True)
        with services(postgres, s3, "drain", listings_bucket_name="drain") as made:
            made.listings_bucket.ensure()
            ours, bare = drained(made, originals, arguments.images, arguments.rounds)
        print(f"images drained a second: {ours:.1f}, bare {bare:.1f}")
        bar("listings_drain_over_bare", ours / bare, 0.8, at_least=True)


app = FastAPI()
"""The endpoint as anybody would write it."""


@app.post("/api/upload/listing_image")
def upload(images: list[UploadFile]) -> dict[str, str]:
    client, bucket = bucket_client()
    for image in images:
        key, data = f"originals/{uuid4()}", image.file.read()
        client.put_object(Bucket=bucket, Key=key, Body=data, ContentType="image/jpeg")
    return {"status": "success"}


@cache
def bucket_client() -> tuple[Any, str]:
    settings = load()
    client = boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        aws_access_key_id=settings.s3_access_key,
        aws_secret_access_key=settings.s3_secret_key,
        region_name=settings.s3_region,
    )
    return client, settings.listings_bucket_name


@contextmanager
def server(made: Services, port: int, *command: str) -> Iterator[None]:
    process = subprocess.Popen([sys.executable, *command], env={**os.environ, **made.settings.environment()})
    try:
        wait_for(lambda: listening(port), "the server", 60)
        yield
    finally:
        process.terminate()
        process.wait(20)


def rate(port: int, body: bytes, seconds: float) -> float:
    """Answered uploads a second of CLIENTS clients that send one after the other."""
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    began = time.monotonic()

    def client(_: int) -> int:
        connection, count = http.client.HTTPConnection(LOOPBACK, port), 0
        while time.monotonic() - began < seconds:
            connection.request("POST", "/api/upload/listing_image", body, headers)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200, answer.status
            count += 1
        connection.close()
        return count

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS))) / (time.monotonic() - began)


def drained(made: Services, originals: list[bytes], images: int, rounds: int) -> tuple[float, float]:
    """Images a second of the queue, and of the loop."""
    chosen, cores = steps.options_of(made.settings), os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("forkserver")) as pool:

        def queue() -> float:
            fill(made, originals, images)
            done = drain(made, f"bench-{uuid4()}")
            assert done.processed == images, done
            return images / done.seconds

        def loop() -> float:
            started = time.monotonic()
            work = [(originals[n % len(originals)], chosen) for n in range(images)]
            assert sum(1 for _ in pool.map(bare, work)) == images
            return images / (time.monotonic() - started)

        return interleaved(rounds, queue, loop)


def bare(work: tuple[bytes, steps.Options]) -> int:
    """The engine and nothing else, as polite to other processes as the queue's workers are."""
    return len(steps.make_aside(*work).data)


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
        made.claims.enqueue(connection, store.QUEUE, list(items.values()))


if __name__ == "__main__":
    main()
