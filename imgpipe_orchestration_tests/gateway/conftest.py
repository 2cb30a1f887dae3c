"""A live gateway, as the media tests have it, and a browser before it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser
from sqlalchemy import text

from imgpipe_orchestration.storage.rows import connect
from imgpipe_orchestration_tests.gateway.browser import Visitor, chromium, visitor
from imgpipe_orchestration_tests.media.conftest import Gateway, gateway, make_gateway, seeing_gateway

__all__ = ["gateway", "make_gateway", "seeing_gateway"]


@contextmanager
def frozen_sessions(database_url: str) -> Iterator[None]:
    """The sessions that a database has now hear nothing and say nothing, and stay open."""
    onlooker = connect(database_url)
    sessions = text(
        "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    with onlooker.connect() as connection:
        frozen = list(connection.scalars(sessions))
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)
        onlooker.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser a module: Playwright keeps an event loop running in the thread that started it, and whoever else wants
    to run one there (Dagster does) finds it taken."""
    with chromium() as running:
        yield running


@pytest.fixture
def guest(gateway: Gateway, browser: Browser) -> Iterator[Visitor]:
    """Somebody at the development gateway, on a wide and light screen."""
    with visitor(browser, gateway.url) as somebody:
        yield somebody


Visit = Callable[..., Any]


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """Visitors of any gateway, with a screen of any kind: `with visit(gateway.url, color_scheme="dark") as guest`."""

    def at(base: str, **context: Any) -> Any:
        return visitor(browser, base, **context)

    return at
