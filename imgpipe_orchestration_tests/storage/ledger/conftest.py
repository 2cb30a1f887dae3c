"""A migrated database for the journal."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.storage import migrations
from imgpipe_orchestration.storage.rows import connect


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = connect(postgres_url)
    migrations.upgrade(engine)
    yield engine
    engine.dispose()
