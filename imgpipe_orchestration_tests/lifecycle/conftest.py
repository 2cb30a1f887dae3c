"""Gateways with images that are finished, and what the tests say about deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from imgpipe_orchestration.lifecycle import work
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.media.conftest import Gateway, gateways, picture

USER = 456


@pytest.fixture
def make_gateway(settings: Settings) -> Iterator[Callable[..., Gateway]]:
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


def finished(gateway: Gateway, *, user: int = USER, field: str = "product_image", seed: int = 1) -> int:
    """Upload an image, process it; returns its media id."""
    answer = gateway.upload(user, **{field: picture(seed=seed)})
    assert answer.status_code == 200, answer.text
    gateway.run_due(f"run-{seed}")
    (row,) = gateway.rows("select id from media_files where main_api_id = :id", id=answer.json()["images"][0]["id"])
    return int(row.id)


def call(gateway: Gateway, method: str, path: str, user: int | None = None, **options: Any) -> requests.Response:
    """A request as a user, or as an operator."""
    key = gateway.settings.admin_api_key
    headers = {"Authorization": f"Bearer {key}"} if user is None else gateway.as_user(user)
    return gateway.session.request(method, gateway.url + path, headers=headers, timeout=60, **options)


def delete(gateway: Gateway, media_id: int, user: int | None = USER, **query: Any) -> requests.Response:
    return call(gateway, "DELETE", f"/api/media/{media_id}", user, params=query)


def purge(gateway: Gateway, owner: str = "purge-1") -> dict[str, Any]:
    """What a run of the job `purge` does."""
    return work.run(gateway.services, owner)


def keys(gateway: Gateway) -> set[str]:
    """All objects of the media bucket."""
    return {one.key for one in gateway.services.media_bucket.list()}
