"""A database and its claims, for the tests of the queues."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.storage.claims import Claims
from imgpipe_orchestration.storage.rows import connect


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = connect(postgres_url)
    yield engine
    engine.dispose()


@pytest.fixture
def claims(engine: Engine) -> Claims:
    return Claims(engine, lease_seconds=30)
