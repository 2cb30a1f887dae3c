"""A client of an app in this process, which asks as a program on this machine does."""

from typing import Any

from fastapi.testclient import TestClient
from starlette.types import ASGIApp


class Client(TestClient):
    """By default from loopback, to loopback."""

    def __init__(self, app: ASGIApp, base_url: str = "http://localhost", **options: Any) -> None:
        super().__init__(app, base_url, client=("127.0.0.1", 50_000), **options)
