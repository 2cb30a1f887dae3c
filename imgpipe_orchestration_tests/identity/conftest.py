"""A live gateway, also as in production, and a browser before it."""

from collections.abc import Callable

import pytest

from imgpipe_orchestration_tests.gateway.conftest import browser
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway

__all__ = ["browser", "make_gateway"]


@pytest.fixture
def production(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway(imgpipe_env="production", **KEYS)
