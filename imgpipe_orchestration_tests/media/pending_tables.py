"""A `pending_images` in PostgreSQL, and in a MariaDB that holds the documents' own DDL."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.devstack.ports import free_port
from imgpipe_orchestration.media import pending
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.conftest import open_folder
from imgpipe_orchestration_tests.parts import running
from imgpipe_orchestration_tests.servers import PENDING_IMAGES, MariaDB

PATH = "/temp_images/profiles/456-profile-{n}.jpg"


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    with open_folder() as folder, running(MariaDB(folder / "data", free_port())) as server:
        yield server


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.slow)])
def pending_url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    """URL of a database that holds an empty `pending_images`."""
    if request.param == "postgresql":
        return postgres_url
    server: MariaDB = request.getfixturevalue("mariadb_server")
    name = f"pending_{uuid4().hex[:8]}"
    server.execute(f"CREATE DATABASE {name}", f"USE {name}", PENDING_IMAGES)
    return f"{server.url}/{name}"


@pytest.fixture
def services(settings: Settings, pending_url: str) -> Iterator[Services]:
    services = Services(Settings(**{**settings.model_dump(), "pending_images_database_url": pending_url}))
    yield services
    services.close()


@pytest.fixture
def engine(services: Services) -> Engine:
    return services.pending_engine


def add(engine: Engine, n: int, *, name: str = "photo.jpg") -> int:
    with transaction(engine) as connection:
        return pending.add(
            connection, user_id=456, image_path=PATH.format(n=n), original_name=name, mime_type="image/jpeg"
        )


def status(engine: Engine, image_id: int) -> str:
    with transaction(engine) as connection:
        return pending.get(connection, image_id).status
