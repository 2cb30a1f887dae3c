"""Clients on the stand-ins, with a short temper."""

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TypeVar

import pytest

from imgpipe_orchestration.partners.openai import OpenAIClient
from imgpipe_orchestration.partners.retry import RetryPolicy
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.partners.wire import Behaviour, Server, serving

Client = TypeVar("Client", bound=OpenAIClient)

QUICK = RetryPolicy(attempts=2, first_wait=0.02, longest_wait=0.05, budget=10)
"""One retry, hardly any wait."""


@contextmanager
def asking(behave: Behaviour, kind: type[Client], attempts: int = 1) -> Iterator[tuple[Client, Server]]:
    """A client of a server that behaves like this, and the server."""
    policy = RetryPolicy(attempts=attempts, first_wait=0, budget=5)
    with serving(behave) as server, closing(kind("k", base_url=server.url, policy=policy)) as client:
        yield client, server


@pytest.fixture
def openai(standins: StandInAccess, request: pytest.FixtureRequest) -> Iterator[OpenAIClient]:
    # The test's name as key: the rate gate belongs to the key, and one test's 429 must not hold back the next.
    client = OpenAIClient(request.node.nodeid, base_url=standins.openai_url, timeout=5, policy=QUICK)
    yield client
    client.close()


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A JPEG of 600 x 400: red, with a blue block at the lower right."""
    from PIL import Image

    image = Image.new("RGB", (600, 400), (200, 40, 30))
    image.paste((30, 60, 200), (400, 260, 580, 390))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
