"""Starting, looking at and stopping the queue's job, and the debug endpoints."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.listings import model, store
from imgpipe_orchestration.listings.debug_routes import FOLDER
from imgpipe_orchestration.listings.runs import Drained, run
from imgpipe_orchestration.settings import Settings
from imgpipe_orchestration.storage import job_definitions, job_instances
from imgpipe_orchestration.storage.rows import autocommit, transaction
from imgpipe_orchestration.wiring.services import Services
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.listings.conftest import JOB, drain, path_of, photo, queued

BODY: dict[str, Any] = {
    "id": "process-image-queue",
    "name": "Process Image Queue",
    "description": "Process pending images in queue",
    "type": "process_images",
    "interval": "10s",
    "payload": {"batch_size": 10},
}


def test_the_job_is_there_from_the_start_with_the_documents_values(client: Client) -> None:
    data = client.get(JOB).json()["data"]
    assert {name: data[name] for name in BODY} == BODY
    assert (data["state"], data["last_run"], data["last_result"]) == ("active", None, None)
    assert data["counts"] == {"pending": 0, "processed": 0, "retry": 0, "failed": 0}
    assert datetime.fromisoformat(data["next_run"])


def test_a_stopped_job_stays_so_and_keeps_uploads_and_a_started_one_processes_them(
    client: Client, services: Services
) -> None:
    client.post("/api/jobs", json={**BODY, "interval": "2m"})
    stopped = client.delete(JOB)
    assert (stopped.status_code, stopped.json()["data"]["state"]) == (200, "stopped")
    assert client.delete(JOB).status_code == 200
    image = queued(client, photo())[0]
    assert store.due(services) == "the job is stopped; POST /api/jobs starts it again"
    assert drain(services, "run-1").ended == "the job was stopped"
    with Client(create_app(services.settings)) as restarted:
        data = restarted.get(JOB).json()["data"]
    assert (data["state"], data["interval"], data["next_run"], data["counts"]["pending"]) == ("stopped", "2m", None, 1)
    assert client.get(path_of(image)).headers["cache-control"] == "no-store"

    started = client.post("/api/jobs", json={**BODY, "interval": "1h30m", "payload": {"batch_size": 3}})
    assert (started.status_code, started.json()["data"]["state"]) == (200, "active")
    assert store.due(services) == [datetime.now(UTC).date().isoformat()]
    run(services, "run-2", done := Drained())
    assert done.processed == 1
    data = client.get(JOB).json()["data"]
    assert (data["interval"], data["payload"], data["last_run_id"]) == ("1h30m", {"batch_size": 3}, "run-2")
    assert (data["last_result"]["processed"], data["last_result"]["ended"]) == (1, "nothing more is due")
    assert data["counts"] == {"pending": 0, "processed": 1, "retry": 0, "failed": 0}
    last, following = (datetime.fromisoformat(data[name]) for name in ("last_run", "next_run"))
    assert (following - last).total_seconds() == pytest.approx(5400, abs=0.01)
    queued(client, photo())
    assert store.due(services) == "the last run began less than 1h30m ago"


def test_all_images_are_counted_without_being_read(engine: Engine) -> None:
    with autocommit(engine) as connection:
        connection.execute(text("set synchronous_commit = on"))  # else no page is known to be visible to all yet
        connection.execute(text("""
            insert into image_queue (public_id, listing_title, file_name, status, max_retries, original_name,
                original_key, content_type, bytes, width, height)
            select gen_random_uuid(), repeat('a', 200), i || '.webp', 'processed', 3, 'a', i, 'image/jpeg', 1, 1, 1
            from generate_series(1, 10000) i
        """))  # fmt: skip
        connection.execute(text("vacuum analyze image_queue, deletions"))
        plan = "\n".join(connection.scalars(text(f"explain {store._COUNTS.text}")))
    assert "Index Only Scan using image_queue_status" in plan


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"interval": "soon"}, "interval"),
        ({"interval": ""}, "interval"),
        ({"interval": "0s"}, "interval"),
        ({"interval": "10"}, "interval"),
        ({"interval": "-10s"}, "interval"),
        ({"interval": "9999h"}, "interval"),
        ({"interval": 10}, "interval"),
        ({"type": "make_coffee"}, "type"),
        ({"id": "another-job"}, "id"),
        ({"payload": {"batch_size": 0}}, "payload.batch_size"),
        ({"payload": {"batch_size": 501}}, "payload.batch_size"),
        ({"payload": {"batch_size": "ten"}}, "payload.batch_size"),
        ({"payload": {"batchsize": 10}}, "payload.batchsize"),
        ({"name": "\0"}, "name"),
    ],
)
def test_a_definition_that_makes_no_sense_is_422_naming_the_field(
    client: Client, change: dict[str, Any], field: str
) -> None:
    answer = client.post("/api/jobs", json={**BODY, **change})
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert "Value error" not in answer.text  # how pydantic marks the words of ours
    assert client.get(JOB).json()["data"]["interval"] == "10s"


def test_an_unknown_job_is_404_and_a_run_that_was_asked_for_is_found_by_its_id(client: Client, engine: Engine) -> None:
    assert client.get("/api/jobs/unknown").status_code == 404
    assert client.get("/api/jobs/%00").status_code == 404
    assert client.delete("/api/jobs/unknown").status_code == 404
    instance, _ = job_instances.create_or_join(engine, "auto_marker", customer_id="customer_123")
    found = client.get(f"/api/jobs/{instance.id}")
    assert (found.status_code, found.json()["status"]) == (200, "queued")
    assert client.get(f"/api/jobs/{instance.id}", headers={"X-Customer-ID": "another"}).status_code == 404


def test_a_run_that_was_killed_is_not_shown_as_running_for_ever(client: Client, services: Services) -> None:
    with transaction(services.engine) as connection:
        job_definitions.started(connection, model.JOB_ID, "run-1")
    assert client.get(JOB).json()["data"]["state"] == "running"
    with transaction(services.engine) as connection:
        job_definitions.stopped_unfinished(connection, "run-1")
    data = client.get(JOB).json()["data"]
    assert (data["state"], data["last_result"]) == ("active", {"ended": "the run stopped unfinished"})


def test_the_debug_status_has_the_documents_shape(client: Client) -> None:
    queued(client, photo(), photo())
    assert client.get("/debug/image-queue-status").json() == {
        "pending_count": 2,
        "queue_status": {"initialized": True, "status": "active", "state": "active"},
    }
    client.delete(JOB)
    stopped = {"initialized": True, "status": "stopped", "state": "stopped"}
    assert client.get("/debug/image-queue-status").json()["queue_status"] == stopped
    assert client.get(JOB).json()["data"]["state"] == "stopped"


def test_a_test_image_comes_from_the_configured_folder_only(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(photo())
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "text.jpg").write_text("not an image")
    expected = {
        "../secret.jpg": 404,
        str(tmp_path / "secret.jpg"): 404,
        "link.jpg": 404,
        "absent.jpg": 404,
        ".": 404,
        "a\0b": 404,
        "text.jpg": 415,
    }
    with Client(create_app(settings.model_copy(update={"imgpipe_data_dir": tmp_path}))) as client:
        for path, status in expected.items():
            answer = client.post("/debug/upload-test-image", json={"listing_title": "x", "image_path": path})
            assert answer.status_code == status, (path, answer.text)
