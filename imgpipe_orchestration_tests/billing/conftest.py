"""The fixtures of several files."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration_tests.billing.half_price import Shop
from imgpipe_orchestration_tests.conftest import StandInAccess


@pytest.fixture
def shop(engine: Engine, standins: StandInAccess, request: pytest.FixtureRequest) -> Iterator[Shop]:
    policy = RetryPolicy(attempts=1, budget=10)
    client = OpenAIClient(request.node.nodeid, base_url=standins.openai_url, timeout=5, policy=policy)
    shop = Shop(engine, standins, client)
    shop.enqueue()
    yield shop
    client.close()
