"""A misspelt parameter of a list is refused by name, at every route that has parameters to narrow its answer down."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.client import Client

IMAGES = {"serving", "components"}
"""Their URLs stand in pages and databases, where others add parameters to them."""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A gateway whose databases are away: what is refused is refused before they are asked."""
    with Client(create_app(Settings(database_url="postgresql://nobody@127.0.0.1:1/none"))) as client:
        yield client


def test_every_list_refuses_a_parameter_that_it_does_not_have_and_says_so(client: Client) -> None:
    lists = {}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        told = methods.get("get", {"tags": IMAGES})
        names = [one["name"] for one in told.get("parameters", ()) if one["in"] == "query"]
        if names and IMAGES.isdisjoint(told["tags"]):
            lists[path] = names
            assert "400" in told["responses"], path
    assert {"/api/jobs", "/api/avatars/tasks", "/cron-jobs", "/api/media/search"} <= set(lists)
    key = {"Authorization": "Bearer development-only-secret-do-not-use-in-production"}
    number = "00000000-0000-0000-0000-000000000000"
    for path, names in lists.items():
        answer = client.get(re.sub(r"\{[^}]+\}", number, path), params={"limt": "3"}, headers=key)
        assert answer.status_code == 400, (path, answer.text)
        assert answer.json()["code"] == "unknown-parameter"
        assert answer.json()["detail"] == f"There is no parameter 'limt', only {', '.join(names)}."
