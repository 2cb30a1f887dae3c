"""A live gateway, also as in production, and a browser before it."""

from collections.abc import Callable

import pytest
import requests

from imgpipe_orchestration_tests.gateway.conftest import browser
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.media.conftest import Gateway, make_gateway

__all__ = ["browser", "make_gateway"]


def signed_in(gateway: Gateway) -> tuple[requests.Session, str]:
    """Somebody who has entered ADMIN_API_KEY, and the token of their forms."""
    browser = requests.Session()
    browser.post(f"{gateway.url}/login", data={"key": KEYS["admin_api_key"]}, timeout=30)
    page = browser.get(f"{gateway.url}/keys", timeout=30).text
    return browser, page.partition('name="form_token" value="')[2].partition('"')[0]


@pytest.fixture
def production(make_gateway: Callable[..., Gateway]) -> Gateway:
    return make_gateway(imgpipe_env="production", **KEYS)
