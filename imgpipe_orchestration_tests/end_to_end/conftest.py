"""Two stacks, each with Dagster and every stand-in; each test brings users and customers of its own."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
import requests

from imgpipe_orchestration_tests.conftest import open_folder
from imgpipe_orchestration_tests.devstack.running import Up, clean_environment, whole
from imgpipe_orchestration_tests.standins.server import partners

ROOT = Path(__file__).parents[2]
_users = itertools.count(1000)
_FIRST = {"test_media", "test_pages", "test_pictures"}
"""Modules that share the first stack; the others share the second."""


@dataclass
class Stack:
    """A running stack as its users see it."""

    up: Up
    environment: dict[str, str]
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def gateway(self) -> str:
        return self.environment["GATEWAY_URL"]

    def new_user(self) -> int:
        return next(_users)

    def as_user(self, user: int) -> dict[str, str]:
        token = jwt.encode({"sub": str(user), "exp": 4_000_000_000}, self.environment["USER_JWT_SECRET"], "HS256")
        return {"Authorization": f"Bearer {token}"}

    def upload(self, user: int, **files: bytes) -> dict[str, Any]:
        parts = {name: (f"{name}.jpg", data, "image/jpeg") for name, data in files.items()}
        answer = self.session.patch(f"{self.gateway}/users/me", files=parts, headers=self.as_user(user), timeout=30)
        assert answer.status_code == 200, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    def me(self, user: int) -> dict[str, Any]:
        answer = self.session.get(f"{self.gateway}/users/me", headers=self.as_user(user), timeout=30)
        profile: dict[str, Any] = answer.json()
        return profile

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of the project's database."""
        with psycopg.connect(self.environment["DATABASE_URL"]) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def graphql(self, query: str, **variables: Any) -> Any:
        """What the Dagster UI would ask."""
        url = f"{self.environment['DAGSTER_URL']}/graphql"
        answer = self.session.post(url, json={"query": query, "variables": variables}, timeout=30).json()
        assert "errors" not in answer, answer
        return answer["data"]

    def runs(self, job: str, **more: Any) -> list[dict[str, Any]]:
        """Runs of a job that also pass further filters, newest first: runId, status, tags."""
        query = """
            query Runs($filter: RunsFilter) { runsOrError(filter: $filter) {
                ... on Runs { results { runId status tags { key value } } } } }
        """
        found: list[dict[str, Any]] = self.graphql(query, filter={"pipelineName": job, **more})["runsOrError"][
            "results"
        ]
        return found

    def dagster(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the `dagster` CLI, as the docs have it: in the project's root, with `imgpipe env` in force."""
        command = [sys.executable, "-m", "dagster", *words]
        environ = {**clean_environment(), **self.environment, "PATH": os.environ["PATH"]}
        return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False)


@pytest.hookimpl(tryfirst=True)  # before the whole suite's, which leaves these alone
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two workers run these, each on a stack of its own: one alone would be busy long after all other tests."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("stack_1" if item.path.stem in _FIRST else "stack_2"))
            item.add_marker(pytest.mark.timeout(900))  # two stacks and other tests share the cores


@contextmanager
def started(**settings: str) -> Iterator[Stack]:
    """A stack whose partners fail on request."""
    with (
        open_folder() as folder,
        partners(folder) as faulty,
        whole(folder / "data", "--port", "0", **faulty.settings, **settings) as running,
    ):
        yield Stack(running, running.environment)


@pytest.fixture(scope="package")  # for a session it would take a tenth of the processor from all other tests
def stack() -> Iterator[Stack]:
    # A new stack's days begin with today, and backfills need some before it.
    with started(SPENDING_PAUSE_SECONDS="20", MEDIA_FIRST_DAY="2025-01-01") as stack:
        yield stack
