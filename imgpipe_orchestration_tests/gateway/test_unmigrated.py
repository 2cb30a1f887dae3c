"""A gateway on a database that nobody has migrated."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import requests
from sqlalchemy import Engine, text

from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration.storage.migrations import upgrade
from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.parts import ensure_database

PAGES = ("/", "/media", "/listings", "/processing", "/vision-reports", "/avatars", "/failures", "/components")
IDS = {
    **dict.fromkeys(("image_id", "media_id", "task_id", "user_id"), "1"),
    **dict.fromkeys(("batch_id", "job_id", "erasure_id"), str(uuid4())),
}


@pytest.fixture
def at_revision(make_gateway: Callable[..., Gateway], postgres_server: Postgres) -> Iterator[Callable[[str], Gateway]]:
    """A gateway on a database that was brought to some revision and no further."""
    made: list[Engine] = []

    def make(revision: str) -> Gateway:
        url = ensure_database(postgres_server, f"unmigrated_{uuid4().hex[:8]}")
        made.append(connect(url))
        if revision:
            upgrade(made[-1], revision)
        return make_gateway(database_url=url, pending_images_database_url=url)

    yield make
    for engine in made:
        engine.dispose()


def read(gateway: Gateway, path: str) -> requests.Response:
    settings = gateway.settings
    key = settings.media_api_key if path.startswith("/api/media") else settings.admin_api_key
    headers = gateway.as_user(7) if path.startswith("/users/me") else {"Authorization": f"Bearer {key}"}
    return gateway.get(path.format_map(defaultdict(lambda: "x", IDS)), **headers)


def test_every_route_says_what_to_do_and_works_once_it_is_done(at_revision: Callable[[str], Gateway]) -> None:
    gateway = at_revision("")
    paths = [path for path, methods in gateway.get("/openapi.json").json()["paths"].items() if "get" in methods]
    answers = {path: read(gateway, path) for path in (*paths, *PAGES)}
    answers["an upload"] = gateway.upload(7, profile_image=picture())
    health = answers.pop("/health")
    failed = {path: answer for path, answer in answers.items() if answer.status_code >= 500}
    assert {answer.status_code for answer in failed.values()} == {503}
    for answer in failed.values():
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "not-migrated"
        assert "run `imgpipe migrate`" in answer.json()["detail"]
    assert set(answers) - set(failed) == {
        *("/health/live", "/metrics", "/available_models", "/components/{name}"),
        "/storage/v1/object/public/listing-images/{file_name}",  # x is no name of an image
        "/api/customers/{customer_id}/image-config",  # in MongoDB
    }
    assert health.status_code == 503
    assert "run `imgpipe migrate`" in health.json()["checks"]["database"]

    upgrade(gateway.services.engine)
    assert gateway.get("/health").status_code == 200
    assert gateway.upload(7, profile_image=picture()).status_code == 200
    assert {read(gateway, path).status_code for path in PAGES} == {200}


def test_a_database_that_lacks_the_newest_revisions_alone_is_told_as_well(
    at_revision: Callable[[str], Gateway],
) -> None:
    gateway = at_revision("head")
    with gateway.services.engine.begin() as connection:
        connection.execute(text("update alembic_version set version_num = '0000'"))
        connection.execute(text("alter table media_ai_analysis drop column words"))
    assert gateway.get("/health").status_code == 503
    searched = read(gateway, "/api/media/search?text=boat")
    assert (searched.status_code, searched.json()["code"]) == (503, "not-migrated")
