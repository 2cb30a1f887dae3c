"""`GET /health` through the app."""

from __future__ import annotations

from fastapi.testclient import TestClient

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings


def test_a_gateway_whose_servers_answer_is_healthy(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"database": "ok", "object_store": "ok"}


def test_a_gateway_without_a_database_says_so(settings: Settings) -> None:
    broken = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    with TestClient(create_app(broken)) as client:
        answer = client.get("/health")
    assert answer.status_code == 503
    assert "cannot be reached" in answer.json()["checks"]["database"]
