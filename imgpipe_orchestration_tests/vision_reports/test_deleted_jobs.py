"""Cron jobs that are deleted while something of theirs is under way."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler

import pytest
from sqlalchemy import text

from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import crew
from imgpipe_orchestration_tests.partners.wire import serving
from imgpipe_orchestration_tests.vision_reports.conftest import ORGANIZATION, Desk, listed_as


def test_what_a_deleted_job_had_in_flight_is_left_to_another_job_and_is_nobodys_failure(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PATIENCE_SECONDS", 0.2)
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.job()
    desk.ask(job)
    desk.run()
    assert desk.api.delete(f"/cron-jobs/{job}").status_code == 200
    assert desk.run().success
    with transaction(desk.services.engine) as rows:
        assert rows.scalar(text("select error from vision_analyses")) == (
            "The cron job that found this analysis was deleted."
        )
    assert (desk.services.claims.failures(), desk.reports) == ([], [])
    desk.backend.status = {"status": "completed"}
    assert desk.execute()["successful"] == 1
    assert len(desk.reports) == 1


def test_a_job_that_is_deleted_while_its_analyses_are_worked_on_delivers_nothing_more(desk: Desk) -> None:
    desk.seed(images=1, descriptions=False)
    job = desk.job()
    behave = desk.backend.behave

    def delete_and_behave(handler: BaseHTTPRequestHandler, number: int) -> None:
        if desk.backend.server.requests[number][0].endswith("/report"):
            assert desk.api.delete(f"/cron-jobs/{job}").status_code == 200
        behave(handler, number)

    with serving(delete_and_behave) as server:
        desk.backend.server = server
        assert desk.api.patch(f"/cron-jobs/{job}", json={"backend_api_url": server.url}).status_code == 200
        desk.ask(job)
        assert desk.run().success
    assert (desk.services.claims.failures(), desk.reports) == ([], [])


def test_a_job_that_is_deleted_while_its_list_is_read_leaves_nothing_to_be_mended(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    answer = listed_as({"vision_analysis_id": "A1", "organization_id": ORGANIZATION})
    jobs: list[str] = []

    def delete_and_answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            assert desk.api.delete(f"/cron-jobs/{jobs[0]}").status_code == 200
        answer(handler, number)

    with serving(delete_and_answer) as api:
        jobs.append(desk.job(external_api_get_url=api.url))
        desk.ask(jobs[0])
        assert desk.run().success
        assert len(api.requests) == 2
    assert desk.services.claims.failures() == []
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []
    with transaction(desk.services.engine) as rows:
        assert rows.scalar(text("select count(*) from vision_analyses")) == 0


def test_a_job_that_is_deleted_before_its_list_is_read_is_nobodys_failure(desk: Desk) -> None:
    job = desk.job()
    desk.ask(job)
    assert desk.api.delete(f"/cron-jobs/{job}").status_code == 200
    assert desk.run().success
    assert desk.services.claims.failures() == []
    assert desk.standins.calls("vision_analysis") == []
