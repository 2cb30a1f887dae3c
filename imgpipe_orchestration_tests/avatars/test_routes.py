"""The HTTP surface: asking, watching, cancelling, retrying, taking home."""

import csv
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from PIL import Image

from imgpipe_orchestration.avatars import export
from imgpipe_orchestration.avatars.model import TaskStatus
from imgpipe_orchestration.avatars.records import Persona
from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration_tests.avatars.conftest import Desk
from imgpipe_orchestration_tests.client import Client


def made(desk: Desk, client: Client, count: int = 2, **options: object) -> str:
    answer = client.post("/api/avatars/tasks", json={"count": count, **options})
    assert answer.status_code == 202
    desk.data()
    desk.images()
    task_id: str = answer.json()["task_id"]
    return task_id


def test_a_task_is_followed_from_request_to_urls(desk: Desk, client: Client) -> None:
    asked = client.post("/api/avatars/tasks", json={"count": 2, "brief": "nurses", "language": "Italian", "seed": 3})
    assert asked.json()["status"] == "pending"
    url = f"/api/avatars/tasks/{asked.json()['task_id']}"
    assert client.get(url).json()["progress"]["percent"] == 0
    desk.data()
    assert client.get(url).json()["status"] == "data-generated"
    desk.images()
    done = client.get(url).json()
    assert (done["status"], done["progress"]["completed"], done["progress"]["percent"]) == ("completed", 2, 100)
    assert done["personas"][0]["image_4_url"].endswith("/image_3.png")
    assert float(done["cost_usd"]) > 0
    assert [task["task_id"] for task in client.get("/api/avatars/tasks").json()["tasks"]] == [done["task_id"]]
    (today,) = client.get("/api/avatars/figures").json()
    assert (today["completed"], today["failed"], today["standin"]) == (2, 0, True)
    assert float(today["cost_usd"]) == float(done["cost_usd"])


def test_people_are_asked_for_once_under_a_key_also_when_two_ask_at_once(desk: Desk, client: Client) -> None:
    wanted: dict[str, Any] = {"count": 2, "brief": "nurses"}

    def ask(key: str) -> tuple[int, dict[str, Any]]:
        answer = client.post("/api/avatars/tasks", json=wanted, headers={"Idempotency-Key": key})
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(6) as pool:
        first, *again = pool.map(ask, ["one"] * 6)
    assert first[0] == 202
    assert again == [first] * 5
    assert ask("another")[1]["task_id"] != first[1]["task_id"]
    assert len(client.get("/api/avatars/tasks").json()["tasks"]) == 2
    wanted["count"] = 3
    status, problem = ask("one")
    assert (status, problem["field"]) == (422, "Idempotency-Key")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "count"),
        ({"count": 501}, "count"),
        ({"count": True}, "count"),
        ({"count": 1, "x": 1}, "x"),
        ({"count": 1, "language": " "}, "language"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_with_the_field(client: Client, body: object, field: str) -> None:
    answer = client.post("/api/avatars/tasks", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def cut_off_who_reads_people(desk: Desk) -> None:
    """Whoever reads them from now on loses the session."""
    fatal = "select people.* from pg_terminate_backend(pg_backend_pid()) left join people on true"
    desk.sql("alter table generation_results rename to people")
    desk.sql(f"create view generation_results as {fatal}")


def test_a_task_that_is_answered_with_503_is_none_and_pays_for_nobody(desk: Desk, client: Client) -> None:
    cut_off_who_reads_people(desk)  # as the answer's progress does and no request
    assert client.post("/api/avatars/tasks", json={"count": 500}).status_code == 503
    assert desk.sql("select count(*) from generation_tasks")[0][0] == 0


def test_an_unknown_task_is_not_found(client: Client) -> None:
    assert client.get("/api/avatars/tasks/nobody").status_code == 404


def test_pages_of_tasks_follow_each_other(client: Client) -> None:
    ids = [client.post("/api/avatars/tasks", json={"count": 1}).json()["task_id"] for _ in range(3)]
    first = client.get("/api/avatars/tasks", params={"limit": 2}).json()
    second = client.get("/api/avatars/tasks", params={"limit": 2, "before": first["next"]}).json()
    assert [task["task_id"] for task in first["tasks"] + second["tasks"]] == ids[::-1]
    assert second["next"] is None


def test_exports_hold_everybody_and_harmless_cells(desk: Desk, client: Client) -> None:
    task_id = made(desk, client)
    desk.sql("update generation_results set bio = '=HYPERLINK(1)' where position = 0")
    url = f"/api/avatars/tasks/{task_id}/export"
    table = list(csv.DictReader(io.StringIO(client.get(url).text.removeprefix("\ufeff"))))
    assert [row["status"] for row in table] == ["completed", "completed"]
    assert table[0]["bio"] == "'=HYPERLINK(1)"
    lines = [json.loads(line) for line in client.get(url, params={"format": "jsonl"}).text.splitlines()]
    assert [line["firstname"] for line in lines] == [row["firstname"] for row in table]
    with zipfile.ZipFile(io.BytesIO(client.get(url, params={"format": "zip"}).content)) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
        assert len([name for name in names if name.endswith(".png")]) == 10
        with Image.open(io.BytesIO(archive.read(f"persona_{lines[0]['result_id']}/image_2.png"))) as image:
            image.load()
        told = json.loads(archive.read("manifest.json"))
    (key,) = (one.key for one in desk.services.avatars_bucket.list() if one.key.endswith("/manifest.json"))
    public = json.loads(desk.services.avatars_bucket.get(key))
    assert told.keys() - public.keys() == {"brief", "style", "seed"}
    hidden = told["personas"][0].keys() - public["personas"][0].keys()
    assert hidden == {"error", "image_prompt", "quality"}
    assert public["personas"][0]["images"] == told["personas"][0]["images"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "zip"])
def test_an_export_whose_people_cannot_be_read_is_an_error_and_not_half_a_file(
    desk: Desk, client: Client, format: str
) -> None:
    url = f"/api/avatars/tasks/{desk.ask(1).task_id}/export?format={format}"
    desk.sql("insert into generation_results (task_id, position) select id, 0 from generation_tasks")
    cut_off_who_reads_people(desk)
    assert client.get(url).status_code == 503


def test_cancelling_and_retrying_over_http(desk: Desk, client: Client) -> None:
    task_id = client.post("/api/avatars/tasks", json={"count": 1}).json()["task_id"]
    assert client.post(f"/api/avatars/tasks/{task_id}/retry-failed").status_code == 409
    assert client.post(f"/api/avatars/tasks/{task_id}/cancel").json()["status"] == "cancelled"
    assert client.post(f"/api/avatars/tasks/{task_id}/cancel").status_code == 409
    again = client.post(f"/api/avatars/tasks/{task_id}/retry-failed")
    assert (again.status_code, "was cancelled" in again.json()["detail"]) == (409, True)

    desk.standins.fault("openai", "content_policy", operation="images")
    failed = made(desk, client, 1)
    answer = client.post(f"/api/avatars/tasks/{failed}/retry-failed").json()
    assert (answer["retried"], answer["task"]["status"]) == (1, "data-generated")
    desk.images()
    assert client.get(f"/api/avatars/tasks/{failed}").json()["status"] == "completed"


def test_of_a_deleted_task_nothing_is_shown_or_tried_again(desk: Desk, client: Client) -> None:
    desk.standins.fault("openai", "content_policy", operation="images")
    url = f"/api/avatars/tasks/{made(desk, client, 1)}"
    assert client.delete(url).status_code == 202
    for method, path in (("GET", ""), ("GET", "/export"), ("POST", "/cancel"), ("POST", "/retry-failed")):
        assert client.request(method, url + path).status_code == 410, path
    assert desk.images().outcome.empty
    assert client.delete(url).status_code == 202


def test_somebody_who_is_deleted_is_gone_at_once(desk: Desk, client: Client) -> None:
    task = made(desk, client, 2)
    shown = [
        f"/api/avatars/tasks/{task}",
        *(f"/api/avatars/tasks/{task}/export?format={format}" for format in ("csv", "jsonl")),
        f"/avatars/{task}",
    ]
    desk.sql("update generation_results set bio = 'Number ' || id")
    id_, other = sorted(person["result_id"] for person in client.get(shown[0]).json()["personas"])
    assert f"/{id_}/" in client.get("/avatars").text
    for gone in (False, True):
        assert [f"Number {id_}" in client.get(url).text for url in shown] == [not gone] * 4
        assert [f"Number {other}" in client.get(url).text for url in shown] == [True] * 4
        with zipfile.ZipFile(io.BytesIO(client.get(shown[1].replace("csv", "zip")).content)) as archive:
            assert (any(f"persona_{id_}/" in name for name in archive.namelist())) is not gone
            assert len(json.loads(archive.read("manifest.json"))["personas"]) == 2 - gone
        assert client.get(f"/avatars/{task}/{id_}/base").status_code == (404 if gone else 200)
        assert client.delete(f"/api/avatars/personas/{id_}").status_code == 202
    assert f"/{id_}/" not in client.get("/avatars").text


def test_a_task_is_finished_and_told_of_without_those_who_are_deleted(desk: Desk, client: Client) -> None:
    task = desk.with_people(4)
    gone, refused, unlucky, lucky = desk.people(task)
    key = f"avatars/task_{task.id}/manifest.json"

    def delete(person: Persona) -> None:
        assert client.delete(f"/api/avatars/personas/{person.id}").status_code == 202
        assert deletion.run(desk.services, "purge-1")["purged"] == 1

    delete(gone)
    assert desk.sql("select objects from deletions") == [(0,)]
    for one in (refused, unlucky):
        desk.standins.fault("openai", "content_policy", operation="images", match=one.name)
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED
    delete(refused)
    assert (desk.task(task).error_log or "").startswith(unlucky.name)
    assert client.post(f"/api/avatars/tasks/{task.task_id}/retry-failed").json()["retried"] == 1
    desk.images()
    assert desk.task(task).status is TaskStatus.COMPLETED
    assert desk.task(task).manifest_url
    delete(lucky)
    desk.images()
    told = json.loads(desk.services.avatars_bucket.get(key))
    assert [one["name"] for one in told["personas"]] == [unlucky.name]
    delete(unlucky)
    desk.images()
    assert desk.services.avatars_bucket.head(key) is None
    assert desk.task(task).manifest_url is None


def test_a_manifest_is_written_for_the_others_while_somebody_waits_for_the_purge(desk: Desk, client: Client) -> None:
    task = desk.with_people(2)
    gone, left = desk.people(task)
    assert client.delete(f"/api/avatars/personas/{gone.id}").status_code == 202
    desk.images()
    assert desk.task(task).manifest_url
    told = json.loads(desk.services.avatars_bucket.get(f"avatars/task_{task.id}/manifest.json"))
    assert [one["result_id"] for one in told["personas"]] == [left.id]


def test_a_manifest_that_is_written_while_its_last_person_is_deleted_goes_too(
    desk: Desk, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = desk.with_people()
    (person,) = desk.people(task)
    manifest = export.manifest

    def purged_meanwhile(*args: Any, **options: Any) -> bytes:
        assert client.delete(f"/api/avatars/personas/{person.id}").status_code == 202
        assert deletion.run(desk.services, "purge-1")["purged"] == 1
        return manifest(*args, **options)

    monkeypatch.setattr(export, "manifest", purged_meanwhile)
    desk.images()
    assert list(desk.services.avatars_bucket.list()) == []
