"""Gateways with images that are finished, and what the tests say about deletion."""

from collections.abc import Callable
from typing import Any

import requests

from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration_tests.media.conftest import Gateway, gateway, make_gateway, picture, seeing_gateway

__all__ = ["gateway", "make_gateway", "seeing_gateway"]

USER = 456


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


def with_another_secret_key(make: Callable[..., Gateway], gateway: Gateway) -> Gateway:
    """The same with another SECRET_KEY, changed as docs/operations.md says."""
    former = gateway.settings.secret_key
    changed = {"secret_key": "another key " * 4, "signed_url_keys": f"{'of urls ' * 5},{former}"}
    return make(**gateway.settings.model_dump() | changed)


def purge(gateway: Gateway, owner: str = "purge-1") -> dict[str, Any]:
    """What a run of the job `purge` does."""
    return deletion.run(gateway.services, owner)


def keys(gateway: Gateway) -> set[str]:
    """All objects of the media bucket."""
    return {one.key for one in gateway.services.media_bucket.list()}
