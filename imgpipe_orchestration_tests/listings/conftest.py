"""What the tests say about listings, and servers that go away."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.devstack.s3 import S3
from imgpipe_orchestration.listings import runs
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture
from imgpipe_orchestration_tests.parts import running

JOB = "/api/jobs/process-image-queue"


@pytest.fixture
def own_s3(tmp_path: Path, settings: Settings) -> Iterator[tuple[S3, Settings]]:
    """An object store that a test may stop, and settings that use it."""
    server = S3(tmp_path / "own-s3", free_port(), access_key="test-access", secret_key="test-secret")
    settings = settings.model_copy(update={"s3_endpoint": server.url})
    with running(server):
        with closing(Services(settings)) as services:
            services.listings_bucket.ensure()
        yield server, settings


@contextmanager
def database_away(settings: Settings, server: Postgres) -> Iterator[None]:
    """The settings' database lets nobody in meanwhile, and ends every session."""
    name = make_url(settings.database_url).database or ""
    allow = sql.SQL("alter database {} with allow_connections {}")
    with psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute(allow.format(sql.Identifier(name), sql.Literal(False)))
        administrator.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [name])
        try:
            yield
        finally:
            administrator.execute(allow.format(sql.Identifier(name), sql.Literal(True)))


def photo(width: int = 320, height: int = 240, *, seed: int = 1) -> bytes:
    return encoded(picture(width, height, seed=seed), "JPEG", quality=85)


@dataclass(frozen=True)
class Form:
    """A multipart upload: files as (name, bytes)."""

    title: str = "Test Listing"
    files: Sequence[tuple[str, bytes]] = ()
    field: str = "images"

    def send(self, client: Client, **headers: str) -> Any:
        parts = [(self.field, (name, data, "application/octet-stream")) for name, data in self.files]
        return client.post(
            "/api/upload/listing_image", data={"listing_title": self.title}, files=parts, headers=headers
        )


def queued(client: Client, *photos: bytes, title: str = "Test Listing") -> list[dict[str, str]]:
    """Upload and return what the answer says of each image."""
    files = [(f"{number}.jpg", data) for number, data in enumerate(photos)]
    answer = Form(title, files).send(client)
    assert answer.status_code == 200, answer.text
    images: list[dict[str, str]] = answer.json()["data"]["images"]
    return images


def drain(services: Services, owner: str) -> runs.Drained:
    """What a run over the queue did."""
    runs.drain(services, owner, done := runs.Drained())
    return done


def path_of(image: dict[str, str]) -> str:
    """The path of an image's URL, for a client whose base is another."""
    return "/" + image["url"].split("/", 3)[3]


def rows(services: Services, sql: str, **values: Any) -> list[Any]:
    with transaction(services.engine) as connection:
        return list(connection.execute(text(sql), values).all())
