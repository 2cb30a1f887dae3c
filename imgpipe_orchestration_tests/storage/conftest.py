"""A database and its claims, for the tests of the queues."""

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.storage.claims import Claims


@pytest.fixture
def claims(engine: Engine) -> Claims:
    return Claims(engine, lease_seconds=30)
