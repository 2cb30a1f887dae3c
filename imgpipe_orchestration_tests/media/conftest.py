"""A live gateway over the test's own servers, users that upload, and pictures with something in them."""

import io
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import numpy as np
import pytest
import requests
from PIL import Image
from sqlalchemy import text

from imgpipe_orchestration.media import stages
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.live import live
from imgpipe_orchestration_tests.media.worker import run, today


def picture(width: int = 360, height: int = 240, *, seed: int = 1, format: str = "JPEG", mode: str = "RGB") -> bytes:
    """A smooth picture with edges, different for every seed."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 9, len(mode)), dtype=np.uint8)
    image = Image.fromarray(small, mode).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


@dataclass
class Gateway:
    """A gateway that listens, and a client of it."""

    url: str
    settings: Settings
    services: Services
    session: requests.Session = field(default_factory=requests.Session)
    opened: ExitStack = field(default_factory=ExitStack)

    def changed(self, **settings: Any) -> Services:
        """Its services after a change of settings."""
        services = Services(Settings(**{**self.settings.model_dump(), **settings}))
        self.opened.callback(services.close)
        return services

    def as_user(self, user: int) -> dict[str, str]:
        token = jwt.encode({"sub": str(user), "exp": 4_000_000_000}, self.settings.user_jwt_secret, "HS256")
        return {"Authorization": f"Bearer {token}"}

    @property
    def as_worker(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.settings.media_api_key}"}

    def upload(self, user: int = 456, *, texts: dict[str, str] | None = None, **files: bytes) -> requests.Response:
        parts = {name: (f"my {name}.jpg", data, "image/jpeg") for name, data in files.items()}
        headers = self.as_user(user)
        return self.session.patch(f"{self.url}/users/me", files=parts, data=texts, headers=headers, timeout=30)

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.session.get(self.url + path, headers=headers, timeout=30)

    def me(self, user: int = 456) -> dict[str, Any]:
        answer = self.session.get(f"{self.url}/users/me", headers=self.as_user(user), timeout=30)
        assert answer.status_code == 200
        profile: dict[str, Any] = answer.json()
        return profile

    def rows(self, query: str, **values: Any) -> list[Any]:
        """The rows of a statement, none of one that gives none."""
        with self.services.engine.begin() as connection:
            result = connection.execute(text(query), values)
            return list(result) if result.returns_rows else []

    def run_due(self, owner: str = "run-1", day: str | None = None) -> dict[str, stages.Stage]:
        return run(self.services, owner, day or today())

    def finish(self, user: int = 456, **parts: Any) -> None:
        """An upload, and the run that takes it all the way."""
        assert self.upload(user, **parts).status_code == 200
        self.run_due()


@contextmanager
def gateways(settings: Settings) -> Iterator[Callable[..., Gateway]]:
    """Start gateways with some settings of their own."""
    with ExitStack() as opened:

        def make(**changes: Any) -> Gateway:
            listener = opened.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = listener.getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            values = {**settings.model_dump(), "gateway_port": port, "gateway_url": url, "main_api_url": url}
            values |= {"public_base_url": url, "media_backend_url": url, "smart_media_base_url": f"{url}/api/images"}
            own = Settings(**values | changes)
            opened.enter_context(live(own, listener))
            services = Services(own)
            opened.callback(services.close)
            return Gateway(url, own, services, opened=opened)

        yield make


@pytest.fixture
def make_gateway(settings: Settings) -> Iterator[Callable[..., Gateway]]:
    """`gateways` over the test's own servers."""
    with gateways(settings) as make:
        yield make


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway]) -> Gateway:
    """A gateway without any AI provider."""
    return make_gateway()


@pytest.fixture
def seeing_gateway(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> Gateway:
    """A gateway whose AI providers are the stand-ins."""
    return make_gateway(**standins.seeing, partner_timeout_seconds=30)
