"""What the listings' bench works on: servers, photographs, an upload's bytes, a filled queue."""

from __future__ import annotations

import io
import os
import sys
from functools import cache
from pathlib import Path
from uuid import uuid4

from PIL import Image
from running import services_of
from sqlalchemy import text

from imgpipe_orchestration.devstack.photos import open_photo
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.process import Part
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.listings import store
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction

BYTES = 60_000
BOUNDARY = "bench"


def fresh(postgres: Postgres, s3: S3, folder: str) -> Settings:
    """Settings of a database and a bucket of their own."""
    name = f"bench_{uuid4().hex[:8]}"
    settings = Settings(
        imgpipe_data_dir=Path(folder),
        database_url=postgres.ensure_database(name),
        s3_endpoint=s3.url,
        s3_access_key=s3.access_key,
        s3_secret_key=s3.secret_key,
        media_bucket_name="media",
        listings_bucket_name=name.replace("_", "-"),
        gateway_port=free_port(),
        flask_port=free_port(),
        listings_run_seconds=600,
    )
    with services_of(settings) as services:
        services.listings_bucket.ensure()
    return settings


class Server(Part):
    """A Python module that serves HTTP."""

    name = "server"

    def __init__(self, module: str, settings: Settings, folder: str, *, client: str = "") -> None:
        """`client`: of S3, for the bare endpoint, which takes its port from PORT; the gateway's is in the settings."""
        port = free_port() if client else settings.gateway_port
        root = str(Path(__file__).resolve().parent.parent)
        own = {"PORT": str(port), "CLIENT": client, "PYTHONPATH": root}
        self.name = f"{module}-{client}"  # of its log file
        self._module = module
        super().__init__(Path(folder) / self.name, port, environ={**os.environ, **settings.environment(), **own})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", self._module]


def photo(seed: int = 0) -> bytes:
    """A real photograph as a JPEG of about 60 KB."""
    name = ("astronaut", "coffee", "chelsea", "retina")[seed % 4]
    image = open_photo(name).resize((1280, 960), Image.Resampling.LANCZOS)
    if seed // 4 % 2:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    best = b""
    for quality in range(20, 96, 3):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if len(file.getvalue()) > BYTES * 1.05:
            break
        best = file.getvalue()
    return best


@cache
def photos() -> list[bytes]:
    return [photo(seed) for seed in range(8)]


def multipart(data: bytes) -> bytes:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="listing_title"\r\n\r\nA bike\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def fill(services: Services, count: int) -> None:
    """Put `count` images into the queue; past 2000, which nobody works on, without their originals."""
    originals = photos()
    bucket = services.listings_bucket
    queue = store.queue_of(services.settings)
    names = []
    for number in range(count):
        one, data = uuid4(), originals[number % len(originals)]
        name, key = f"bench-{one.hex}.webp", f"originals/{one}"
        names.append(store.NewImage(one, None, "Bench", name, "a.jpg", key, "image/jpeg", len(data), 1280, 960))
        if count <= 2000:
            bucket.put(key, data, content_type="image/jpeg")
    with transaction(services.engine) as connection:
        items = store.add(connection, names, max_retries=3)
        services.claims.enqueue(connection, queue, list(items.values()))


def forget(services: Services) -> None:
    """Empty the queue."""
    with transaction(services.engine) as connection:
        for table in ("work_items", "image_queue"):
            connection.execute(text(f"delete from {table}"))
