"""Cron jobs over REST, with the documents' own requests."""

import json
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from imgpipe_orchestration.gateway.app import create_app
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import cron_jobs, executions
from imgpipe_orchestration_tests.client import Client
from imgpipe_orchestration_tests.plans import reading
from imgpipe_orchestration_tests.vision_reports.conftest import KEY, Desk

DOCUMENTED = {
    "name": "Test Vision Analysis Job",
    "schedule": "0 * * * *",
    "external_api_get_url": "https://api.example.com/api/v1/documents/vision_analysis",
    "external_api_post_url": "https://api.example.com/api/v1/documents/vision_analysis/upload",
    "external_api_key": "your_jwt_token",
    "backend_api_url": "http://localhost:8000",
    "organization_id": "your_org_id",
    "enabled": False,
}


def test_the_documents_requests_are_answered_as_the_documents_say(desk: Desk) -> None:
    created = desk.api.post("/cron-jobs", json=DOCUMENTED).json()
    assert created == {
        "status": "success",
        "job_id": str(UUID(created["job_id"])),
        "name": "Test Vision Analysis Job",
        "schedule": "0 * * * *",
        "enabled": False,
    }
    job = f"/cron-jobs/{created['job_id']}"
    assert desk.api.get(job).json()["next_run_at"] is None
    assert desk.api.post(f"{job}/activate").json() == {
        "status": "success",
        "job_id": created["job_id"],
        "enabled": True,
    }
    assert desk.api.get(job).json()["next_run_at"] is not None
    assert desk.api.post(f"{job}/deactivate").json()["enabled"] is False
    assert desk.api.get(job).json()["next_run_at"] is None


def test_a_run_is_started_once_under_a_key(desk: Desk) -> None:
    one, other = desk.job(), desk.job()

    def run(job: object) -> Any:
        return desk.api.post(f"/cron-jobs/{job}/run", headers={"Idempotency-Key": "k"})

    first, again, elsewhere = run(one), run(one), run(other)
    assert (again.status_code, again.json()) == (202, first.json())
    assert (elsewhere.status_code, elsewhere.json()["field"]) == (422, "Idempotency-Key")
    assert desk.api.get(f"/cron-jobs/{one}/executions").json()["total"] == 1
    assert desk.api.post(f"/cron-jobs/{one}/run").json()["execution_id"] != first.json()["execution_id"]


def test_the_example_of_a_config_file_has_the_documents_five_values() -> None:
    example = json.loads((Path(__file__).parents[2] / "cron_config.example.json").read_text())
    assert list(example) == [
        "external_api_get_url", "external_api_post_url", "external_api_key", "backend_api_url", "organization_id",
    ]  # fmt: skip


def test_a_change_keeps_what_it_does_not_name(desk: Desk) -> None:
    job = desk.job()
    changed = desk.api.patch(f"/cron-jobs/{job}", json={"schedule": "*/30 * * * *", "timezone": "Europe/Berlin"}).json()
    assert (changed["schedule"], changed["timezone"], changed["name"]) == (
        "*/30 * * * *", "Europe/Berlin", "Test Vision Analysis Job",
    )  # fmt: skip


@pytest.mark.parametrize("body", [{}, {"name": None}])
def test_a_change_of_nothing_is_refused(desk: Desk, body: dict[str, None]) -> None:
    answer = desk.api.patch(f"/cron-jobs/{desk.job()}", json=body)
    assert (answer.status_code, answer.json()["detail"]) == (422, "Give at least one field a value other than null.")


@pytest.mark.parametrize(
    ("body", "kind", "detail"),
    [
        (b'{"name": }', "application/json", "body: not JSON: Expecting value at"),
        (b'{"name": "n"}', "application/x-www-form-urlencoded", "body: send JSON, with the header `Content-Type: app"),
        (b"[]", "application/json", "body: Input should be a valid dictionary"),
    ],
)
def test_a_body_that_is_no_json_is_told_of_as_such(desk: Desk, body: bytes, kind: str, detail: str) -> None:
    answer = desk.api.post("/cron-jobs", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["field"]) == (422, "body")
    assert answer.json()["detail"].startswith(detail)


def test_a_key_is_encrypted_at_rest_and_returned_by_nothing(desk: Desk) -> None:
    job = desk.job()
    answers = [
        desk.api.post("/cron-jobs", json={**DOCUMENTED, "external_api_key": KEY}).text,
        desk.api.get("/cron-jobs").text,
        desk.api.get(f"/cron-jobs/{job}").text,
        desk.api.patch(f"/cron-jobs/{job}", json={"external_api_key": KEY}).text,
        desk.api.post("/cron-jobs", json={**DOCUMENTED, "external_api_key": KEY, "schedule": "no"}).text,
        desk.api.post("/cron-jobs", json={**DOCUMENTED, "external_api_key": [KEY]}).text,
    ]
    assert not [answer for answer in answers if KEY in answer or 'external_api_key":"' in answer]
    stored = [row[0] for row in desk.sql("select external_api_key from cron_jobs order by id")]
    assert KEY not in "".join(stored)
    assert {desk.services.vault.unlock(token) for token in stored} == {KEY}


def test_secrets_in_an_addresses_query_are_not_returned(desk: Desk) -> None:
    job = desk.job(external_api_get_url="https://api.example.com/list?api_key=hush-hush&a=1")
    assert "hush-hush" not in desk.api.get(f"/cron-jobs/{job}").text


def test_production_asks_for_https(desk: Desk) -> None:
    keys = dict.fromkeys(("media_api_key", "main_api_key", "user_jwt_secret", "secret_key"), "a-real-secret")
    settings = desk.settings.model_copy(update={"imgpipe_env": "production", "admin_api_key": "boss", **keys})
    with Client(create_app(settings)) as api:
        boss: dict[str, Any] = {"headers": {"Authorization": "Bearer boss"}}
        insecure = {**DOCUMENTED, "external_api_get_url": "http://api.example.com/list"}
        assert api.post("/cron-jobs", json=insecure, **boss).json()["field"] == "external_api_get_url"
        assert api.post("/cron-jobs", json=DOCUMENTED, **boss).status_code == 200


def test_a_jobs_executions_are_found_however_many_others_ran_since(desk: Desk) -> None:
    quiet, busy = desk.job(name="quiet"), desk.job(name="busy")
    insert = """
        insert into vision_executions (cron_job_id, trigger, status, started_at)
        select j.id, 'manual', 'success', now() - make_interval(secs => 5000 - i)
        from cron_jobs j, generate_series(1, 4000) i where j.job_id = cast(:job as uuid) and i <= :most
    """
    with transaction(desk.services.engine) as rows:
        rows.execute(text(insert), {"job": quiet, "most": 50})
        rows.execute(text(insert), {"job": busy, "most": 4000})
        rows.execute(text("analyze vision_executions"))
        number = rows.execute(text("select id from cron_jobs where name = 'quiet'")).scalar_one()
    with reading(desk.services.engine, "from vision_executions where cron_job_id") as read:
        assert len(executions.recent(desk.services.engine, number, limit=20)) == 20
    assert 20 <= max(read) <= 25


def test_ticks_missed_while_down_are_made_up_for_once(desk: Desk) -> None:
    job = desk.job()
    desk.sql("update cron_jobs set next_run_at = now() - interval '3 days'")
    assert executions.start_due(desk.services.engine, desk.services.claims) == 1
    assert executions.start_due(desk.services.engine, desk.services.claims) == 0
    (execution,) = desk.executions(job)
    assert (execution["trigger"], execution["status"]) == ("scheduled", "running")
    assert desk.api.get(f"/cron-jobs/{job}").json()["next_run_at"] > execution["started_at"]


@pytest.mark.parametrize("change", ["schedule = 'now and then'", "timezone = 'Mars/Phobos'"])
def test_a_job_that_cannot_be_planned_keeps_no_other_from_its_tick(desk: Desk, change: str) -> None:
    odd, good = desk.job(), desk.job()
    desk.sql(f"update cron_jobs set {change} where job_id = '{odd}'")
    desk.sql("update cron_jobs set next_run_at = now() - interval '1 second'")
    assert executions.start_due(desk.services.engine, desk.services.claims) == 2
    assert [len(desk.executions(job)) for job in (odd, good)] == [1, 1]
    assert executions.start_due(desk.services.engine, desk.services.claims) == 0


def test_a_job_that_was_planned_while_the_clock_was_ahead_is_planned_anew(desk: Desk) -> None:
    desk.job(schedule="* * * * *")
    with transaction(desk.services.engine) as rows:
        rows.execute(text("set local session_replication_role = replica"))  # or `updated_at` would be set
        rows.execute(text("update cron_jobs set (next_run_at, updated_at) = (now() + '9 days', now() + '8 days')"))
        assert cron_jobs.any_due(rows)
    assert executions.start_due(desk.services.engine, desk.services.claims) == 0
    with transaction(desk.services.engine) as rows:
        assert rows.scalar(text("select next_run_at <= now() + interval '1 minute' from cron_jobs"))
        assert not cron_jobs.any_due(rows)


def test_a_tick_is_the_databases_and_not_that_of_a_machine_whose_clock_is_late(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr(cron_jobs, "datetime", Late)
    desk.job(schedule="* * * * *")
    with transaction(desk.services.engine) as rows:
        rows.execute(text("update cron_jobs set next_run_at = now() - interval '1 second'"))
        assert cron_jobs.any_due(rows)
    assert executions.start_due(desk.services.engine, desk.services.claims) == 1
    with transaction(desk.services.engine) as rows:
        assert not cron_jobs.any_due(rows), "the next one is yet to come"
