"""Servers of this test alone, which it may fill, stop and restore; and how listings are fed through the gateway."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from imgpipe_orchestration.devstack.mongo import Mongo
from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.storage.rows import connect, transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.parts import ensure_database, running

BUCKETS = {
    "media_bucket_name": "media",
    "listings_bucket_name": "listings",
    "s3_bucket_name": "avatars",
    "vision_bucket_name": "vision",
}


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of its own at `folder`; needs root."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Take all the space there is, but for `leave` bytes; returns the file to remove again."""
    filler = folder / "filler"
    with filler.open("wb") as file:
        while True:
            room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize - leave
            try:
                os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END) + max(1, room))
                return filler
            except OSError as error:  # a server at work took some of the room in between
                if error.errno != errno.ENOSPC or room <= 0:
                    raise


@contextmanager
def servers(
    folder: Path, *, postgres: Path | None = None, objects: Path | None = None, buckets: bool = True
) -> Iterator[tuple[Postgres, S3, Settings]]:
    """PostgreSQL with the project's schema, an object store, with its buckets unless told otherwise, and the settings
    that name them."""
    rows = Postgres((postgres or folder) / "data", free_port())
    store = S3((objects or folder) / "s3", free_port(), access_key="drill-access", secret_key="drill-secret")
    documents = Mongo(folder / "mongo", free_port())
    with running(rows), running(store), running(documents):
        engine = connect(ensure_database(rows, "imgpipe"))
        upgrade(engine)
        engine.dispose()
        settings = Settings(
            imgpipe_data_dir=objects or folder,
            database_url=ensure_database(rows, "imgpipe"),
            dagster_pg_url=ensure_database(rows, "dagster"),
            mongodb_url=f"{documents.url}/ichat",
            s3_endpoint=store.url,
            s3_access_key=store.access_key,
            s3_secret_key=store.secret_key,
            lease_seconds=3,
            **BUCKETS,
        )
        with_services = Services(settings)
        for name in BUCKETS.values() if buckets else ():
            with_services.objects.bucket(name).ensure()
        with_services.close()
        yield rows, store, settings


@dataclass(frozen=True)
class Accepted:
    """An upload the gateway answered with 200."""

    url: str
    data: bytes


def upload(client: Client, data: bytes) -> tuple[int, Accepted | None]:
    """The status, and what was accepted. Whatever happens it must be an answer of ours."""
    answer = client.post("/api/upload/listing_image", files={"images": ("a.jpg", data)}, data={"listing_title": "Bike"})
    if answer.status_code != 200:
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.status_code, None
    return 200, Accepted(answer.json()["data"]["images"][0]["url"], data)


def path_of(one: Accepted) -> str:
    return "/" + one.url.split("/", 3)[3]


def count(services: Services, query: str) -> int:
    with transaction(services.engine) as connection:
        return int(connection.scalar(text(query)) or 0)


def attempts_by_outcome(services: Services) -> dict[str, int]:
    with transaction(services.engine) as connection:
        rows: Any = connection.execute(text("select outcome, count(*) from work_attempts group by outcome"))
        return {row[0]: row[1] for row in rows}
