"""`GET /health` through the app."""

from http.server import BaseHTTPRequestHandler

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.gateway import health
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import heartbeats
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.gateway.conftest import frozen_sessions
from imgpipe_orchestration_tests.listings.conftest import photo
from imgpipe_orchestration_tests.partners.wire import reply, serving


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first look at the servers may take long: it imports their clients."""
    monkeypatch.setattr(health, "ANSWER_SECONDS", 60)


def test_a_gateway_whose_servers_answer_is_healthy(client: Client) -> None:
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    checks = {"database": "ok", "object_store": "ok", "mongodb": "ok", "last_tick": "never", "dagster_daemon": "never"}
    assert answer.json()["checks"] == checks


AWAY = {
    "database": {"database_url": "postgresql://nobody@127.0.0.1:1/none"},
    "pending_images": {"pending_images_database_url": "mysql://root@127.0.0.1:1/pending"},
    "mongodb": {"mongodb_url": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=300"},
}


@pytest.mark.parametrize("what", AWAY)
def test_a_gateway_names_the_server_that_is_away(settings: Settings, what: str) -> None:
    with Client(create_app(settings.model_copy(update=AWAY[what]))) as client:
        answer, head = client.get("/health"), client.head("/health")
        assert client.get("/health/live").json() == {"status": "ok"}
    assert answer.status_code == head.status_code == 503
    assert answer.json()["status"] == "down"
    assert "cannot be reached" in answer.json()["checks"][what]


def test_a_gateway_that_is_not_set_up_is_no_fault_of_its_callers(settings: Settings) -> None:
    with Client(create_app(settings.model_copy(update={"s3_endpoint": ""}))) as client:
        answer = client.post("/api/upload/listing_image", data={"listing_title": "t"}, files={"images": photo()})
    assert (answer.status_code, answer.json()["code"]) == (503, "settings-error")
    assert "S3_ENDPOINT" not in answer.text


def test_a_sensor_that_never_ticked_is_overdue_once_the_gateway_is_up_for_so_long(settings: Settings) -> None:
    app = create_app(settings)
    with Client(app, base_url=f"http://localhost:{settings.flask_port}") as client:
        fresh = client.get("/health")
        app.state.started -= 17 * 60
        late = client.get("/health")
    assert (fresh.status_code, fresh.json()["checks"]["last_tick"]) == (200, "never")
    assert (late.status_code, late.json()["status"]) == (503, "down")
    assert [late.json()["checks"][name] for name in ("last_tick", "dagster_daemon")] == ["never, overdue"] * 2


def test_an_overdue_round_is_down_on_the_auto_markers_port_and_told_on_the_gateways(
    settings: Settings, engine: Engine
) -> None:
    app = create_app(settings)
    heartbeats.beat(engine, "auto_marker")
    with Client(app, base_url=f"http://localhost:{settings.flask_port}") as client:
        assert client.get("/health").status_code == 200
        with engine.begin() as connection:
            connection.execute(text("update heartbeats set beat_at = now() - interval '17 minutes'"))
        late = client.get("/health")
        through_a_proxy = client.get("/health", headers={"Host": "auto-marker.example"})
    assert (late.status_code, late.json()["status"]) == (503, "down")
    assert through_a_proxy.status_code == 503
    assert late.json()["checks"]["last_tick"].endswith(", overdue")
    with Client(create_app(settings), base_url=f"http://localhost:{settings.gateway_port}") as client:
        told = client.get("/health")
        misnamed = client.get("/health", headers={"Host": f"localhost:{settings.flask_port}"})
    assert told.status_code == misnamed.status_code == 200
    assert told.json()["checks"]["last_tick"].endswith(", overdue")
    assert told.json()["status"] == "degraded"


def test_a_daemon_that_no_longer_ticks_makes_the_gateway_degraded(client: Client, engine: Engine) -> None:
    heartbeats.beat(engine, heartbeats.DAEMON, seconds=20)
    well = client.get("/health").json()
    with engine.begin() as connection:
        connection.execute(text("update heartbeats set beat_at = now() - interval '3 minutes'"))
    stale = client.get("/health")
    live = client.get("/health/live")
    heartbeats.beat(engine, heartbeats.DAEMON, seconds=20)
    again = client.get("/health").json()
    with engine.begin() as connection:
        connection.execute(
            text("update heartbeats set beat_at = now() + interval '1 hour'")
        )  # then the clock goes back
    heartbeats.beat(engine, heartbeats.DAEMON, seconds=20)
    since = heartbeats.last(engine, heartbeats.DAEMON)
    assert since is not None
    assert since.age >= 0
    assert well["status"] == again["status"] == "ok"
    assert (stale.status_code, stale.json()["status"], live.status_code) == (200, "degraded", 200)
    assert stale.json()["checks"]["dagster_daemon"].endswith(", overdue")
    assert "overdue" not in well["checks"]["dagster_daemon"]


def test_a_gateway_whose_object_store_takes_no_objects_is_down(settings: Settings) -> None:
    """As one whose disk is full: it answers whoever reads, and refuses whoever writes."""

    def full(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.command == "PUT":
            reply(handler, b"<Error><Code>XMinioStorageFull</Code></Error>", 507)
        else:
            reply(handler, status=404)

    with serving(full) as server:
        away = settings.model_copy(update={"s3_endpoint": server.url})
        with Client(create_app(away)) as client:
            answer, live = client.get("/health"), client.get("/health/live")
    assert (answer.status_code, answer.json()["status"], live.status_code) == (503, "down", 200)
    assert "no room left" in answer.json()["checks"]["object_store"]


def test_a_gateway_whose_database_is_frozen_says_so_while_it_is(
    client: Client, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/health").status_code == 200
    with frozen_sessions(settings.database_url), monkeypatch.context() as hasty:
        hasty.setattr(health, "ANSWER_SECONDS", 6)
        answer = client.get("/health")
    again = client.get("/health")
    assert answer.status_code == 503
    assert "has not answered" in answer.json()["checks"]["database"]
    assert answer.json()["checks"]["object_store"] == "ok"
    assert again.status_code == 200
