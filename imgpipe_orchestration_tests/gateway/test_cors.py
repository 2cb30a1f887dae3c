"""What a browser asks before a page of another origin may upload, and what it is told."""

from collections.abc import Iterator

import pytest

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.client import Client

SHOP = "https://shop.example"
TO_USERS = [
    ("PATCH", "/users/me"),
    ("POST", "/api/upload/listing_image"),
    ("POST", "/api/media/uploads"),
    ("POST", "/api/media/uploads/17/commit"),
    ("PUT", "/api/media/17/privacy"),
    ("POST", "/api/media/17/signed-url"),
    ("POST", "/api/media/17/report"),
    ("POST", "/api/media/17/restore"),
    ("DELETE", "/api/media/17"),
    ("DELETE", "/api/media/pending/17"),
    ("POST", "/api/media/bulk"),
    ("PATCH", "/api/media/analysis/17"),
    ("DELETE", "/users/me"),
    ("GET", "/users/me/export"),
    ("GET", "/api/erasures/0e1f2a3b-0000-4000-8000-000000000000"),
    ("DELETE", "/api/listings/17/images"),
    ("DELETE", "/api/listings/images/17"),
    ("POST", "/api/listings/images/17/restore"),
]
TO_OTHERS = [
    ("GET", "/api/media/search"),
    ("GET", "/api/media/analysis/17"),
    ("POST", "/api/media/complete/17"),
    ("DELETE", "/api/media/cleanup/17"),
    ("POST", "/api/jobs/trigger"),
    ("POST", "/cron-jobs"),
    ("POST", "/api/avatars/tasks"),
    ("POST", "/failures/requeue"),
]


AWAY = Settings(database_url="postgresql://nobody@127.0.0.1:1/none")
"""Nobody asks a database what a page may do."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(create_app(AWAY.model_copy(update={"frontend_origins": f"{SHOP}, http://localhost:5173"}))) as client:
        yield client


def preflight(client: Client, method: str, path: str, origin: str = SHOP) -> dict[str, str]:
    asked = {"Method": method, "Headers": "authorization, content-type, idempotency-key"}
    headers = {"Origin": origin, **{f"Access-Control-Request-{name}": value for name, value in asked.items()}}
    answer = client.options(path, headers=headers)
    allowed = answer.status_code == 200 and "access-control-allow-origin" in answer.headers
    return dict(answer.headers) if allowed else {}


@pytest.mark.parametrize(("method", "path"), TO_USERS)
def test_a_page_of_a_named_front_end_may_do_what_users_do(client: Client, method: str, path: str) -> None:
    for origin in (SHOP, "http://localhost:5173"):
        told = preflight(client, method, path, origin)
        assert told["access-control-allow-origin"] == origin
        assert method in told["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in told, "no cookie of ours is for other sites"
    assert not preflight(client, method, path, "https://evil.example")


@pytest.mark.parametrize(("method", "path"), TO_OTHERS)
def test_what_operators_and_workers_do_stays_closed_to_pages(client: Client, method: str, path: str) -> None:
    assert not preflight(client, method, path)


def test_refusals_can_be_read_by_the_front_end_too(client: Client) -> None:
    answer = client.patch("/users/me", data={"bio": "x"}, headers={"Origin": SHOP})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, SHOP)
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-origin" not in client.patch("/users/me", headers={"Origin": "null"}).headers


def test_nobody_is_let_in_where_no_front_end_is_named() -> None:
    with Client(create_app(AWAY)) as client:
        assert not preflight(client, "PATCH", "/users/me")
