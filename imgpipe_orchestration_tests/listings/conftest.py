"""The gateway over this test's own servers, and what the tests say about listings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.services import Services
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture

JOB = "/api/jobs/process-image-queue"


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def backends(settings: Settings) -> Iterator[Services]:
    services = Services(settings)
    yield services
    services.close()


def photo(width: int = 320, height: int = 240, *, seed: int = 1) -> bytes:
    return encoded(picture(width, height, seed=seed), "JPEG", quality=85)


@dataclass(frozen=True)
class Form:
    """A multipart upload: files as (name, bytes)."""

    title: str = "Test Listing"
    files: Sequence[tuple[str, bytes]] = ()
    field: str = "images"

    def send(self, client: TestClient, **headers: str) -> Any:
        parts = [(self.field, (name, data, "application/octet-stream")) for name, data in self.files]
        return client.post(
            "/api/upload/listing_image", data={"listing_title": self.title}, files=parts, headers=headers
        )


def queued(client: TestClient, *photos: bytes, title: str = "Test Listing") -> list[dict[str, str]]:
    """Upload and return what the answer says of each image."""
    files = [(f"{number}.jpg", data) for number, data in enumerate(photos)]
    answer = Form(title, files).send(client)
    assert answer.status_code == 200, answer.text
    images: list[dict[str, str]] = answer.json()["data"]["images"]
    return images


def path_of(image: dict[str, str]) -> str:
    """The path of an image's URL, for a client whose base is another."""
    return "/" + image["url"].split("/", 3)[3]


def rows(backends: Services, sql: str, **values: Any) -> list[Any]:
    with transaction(backends.engine) as connection:
        return list(connection.execute(text(sql), values).all())
