"""The HTTP surface, with the documents' own requests."""

from typing import Any

import pytest

from imgpipe_orchestration.auto_marker import runs
from imgpipe_orchestration.auto_marker.store import ImageConfigs
from imgpipe_orchestration.errors import BackendUnavailable
from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.identity import audit
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.auto_marker.conftest import marked, seed
from imgpipe_orchestration_tests.client import Client

TOGGLE, OFF = "/api/customers/c1/image-config", {"auto_mark_cleaned": False}


def work(services: Services) -> None:
    """What the run does that the sensor asks for."""
    runs.mark_round(services, [], "run-1", lambda _: None)


def test_a_trigger_is_accepted_done_and_looked_up(client: Client, services: Services) -> None:
    seed(services, "customer_123", 25)
    asked = client.post("/api/jobs/trigger", headers={"X-Customer-ID": "customer_123", "X-User-ID": "user_456"})
    assert asked.status_code == 202
    body = asked.json()
    assert (body["status"], body["joined"], body["images_marked"]) == ("queued", False, 0)
    assert asked.headers["Location"] == f"/api/jobs/{body['job_id']}"
    waiting = client.get(f"/api/jobs/{body['job_id']}").json()
    assert waiting.items() >= {"status": "queued", "images_found": 0, "images_marked": 0, "images_failed": 0}.items()
    assert waiting.keys() == body.keys() - {"joined"}
    work(services)
    done = client.get(f"/api/jobs/{body['job_id']}").json()
    assert (done["status"], done["customer_id"], done["user_id"]) == ("completed", "customer_123", "user_456")
    assert (done["images_found"], done["images_marked"], done["images_failed"]) == (25, 25, 0)
    assert done["run_id"] == "run-1"
    assert marked(services, "customer_123") == 25


def test_a_second_trigger_joins_the_first(client: Client) -> None:
    ask = {"X-Customer-ID": "c1"}
    first, second = (client.post("/api/jobs/trigger", headers=ask).json() for _ in range(2))
    assert (second["job_id"], second["joined"]) == (first["job_id"], True)


@pytest.mark.parametrize("customer", ["Kunde ä 屋", "UTF-8''a%0Ab"])
def test_a_customer_is_what_the_header_says_in_utf_8(client: Client, customer: str) -> None:
    asked = client.post("/api/jobs/trigger", headers={"X-Customer-ID": customer.encode()})  # type: ignore[dict-item]
    assert (asked.status_code, asked.json()["customer_id"]) == (202, customer)


@pytest.mark.parametrize("headers", [{}, {"X-Customer-ID": ""}, {"X-Customer-ID": "x" * 2001}])
def test_a_trigger_names_its_customer(client: Client, headers: dict[str, str]) -> None:
    answer = client.post("/api/jobs/trigger", headers=headers)
    assert answer.status_code == 422
    assert answer.json()["field"] == "X-Customer-ID"


def test_a_customer_sees_its_own_jobs_and_an_operator_all(client: Client) -> None:
    jobs = {
        c: client.post("/api/jobs/trigger", headers={"X-Customer-ID": c}).json()["job_id"] for c in ("c1", "c2", "c3")
    }
    mine = client.get("/api/jobs?limit=10", headers={"X-Customer-ID": "c1"}).json()
    assert [job["job_id"] for job in mine["jobs"]] == [jobs["c1"]]
    assert client.get(f"/api/jobs/{jobs['c1']}", headers={"X-Customer-ID": "c1"}).status_code == 200
    assert client.get(f"/api/jobs/{jobs['c2']}", headers={"X-Customer-ID": "c1"}).status_code == 404
    everybody = client.get("/api/jobs?limit=2").json()
    assert [job["job_id"] for job in everybody["jobs"]] == [jobs["c3"], jobs["c2"]]
    assert client.get("/api/jobs", headers={"X-Customer-ID": ""}).status_code == 422


def changes(services: Services) -> list[tuple[Any, ...]]:
    """What the audit has of the toggle of c1, the newest first: by whom, before, after."""
    rows = audit.page(services.engine, limit=10, action="switch auto-marker", subject="c1")
    return [(row["after"]["by"], row["before"]["auto_mark_cleaned"], row["after"]["auto_mark_cleaned"]) for row in rows]


def test_the_toggle_is_on_for_a_new_customer_and_the_audit_has_its_changes(client: Client, services: Services) -> None:
    fresh = client.get(TOGGLE).json()
    assert fresh["auto_mark_cleaned"] is True
    off = client.put(TOGGLE, json=OFF, headers={"X-User-ID": "user_456"})
    assert off.status_code == 200
    client.put(TOGGLE, json={"auto_mark_cleaned": True}, headers={"X-Customer-ID": "c1"})
    client.put(TOGGLE, json=OFF)
    now = client.get(TOGGLE).json()
    assert now["auto_mark_cleaned"] is False
    assert now["created_at"] <= now["updated_at"]
    assert changes(services) == [("operator", True, False), ("c1", False, True), ("user_456", None, False)]


def test_a_customer_cannot_touch_another_ones_toggle(client: Client, services: Services) -> None:
    stranger = {"X-Customer-ID": "c2"}
    assert client.get(TOGGLE, headers=stranger).status_code == 404
    assert client.put(TOGGLE, json=OFF, headers=stranger).status_code == 404
    assert ImageConfigs(services.documents).of("c1") == []


def test_while_mongodb_is_away_a_trigger_is_accepted_and_a_change_that_it_did_not_take_leaves_no_trace(
    settings: Settings, services: Services
) -> None:
    away = settings.model_copy(update={"mongodb_url": "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200"})
    seed(services, "c1")
    with Client(create_app(away)) as client:
        assert client.put(TOGGLE, json=OFF).status_code == 503
        assert client.post("/api/jobs/trigger", headers={"X-Customer-ID": "c1"}).status_code == 202
    assert changes(services) == []
    work(services)
    assert marked(services, "c1") == 1


def test_a_change_of_which_nobody_knows_whether_mongodb_took_it_is_in_the_audit(
    client: Client, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = ImageConfigs.switch

    def taken_and_lost(configs: ImageConfigs, customer_id: str, on: bool) -> None:
        switch(configs, customer_id, on)
        raise BackendUnavailable("MongoDB cannot be reached.")

    with monkeypatch.context() as patch:
        patch.setattr(ImageConfigs, "switch", taken_and_lost)
        assert client.put(TOGGLE, json=OFF).status_code == 503
    assert changes(services) == [("operator", None, False)]
