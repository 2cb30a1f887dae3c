"""Backends that do not finish, give up, refuse images, or report what is no report."""

from __future__ import annotations

import time

import pytest

from imgpipe_orchestration.vision_reports import analyses, crew
from imgpipe_orchestration_tests.vision_reports.conftest import Desk


def test_a_backend_that_never_finishes_times_out_and_says_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION_TIMEOUT_SECONDS", "1.2")
    desk.seed(images=1)
    backend = desk.backend
    backend.status = {"status": "running", "done": 0, "total": 1}
    execution = desk.execute()
    assert backend.asked("/report") == 0
    assert execution["status"] == "failed"
    assert "did not finish batch batch/0 within 1 s (0 of 1 images done)" in execution["analyses"][0]["error"]
    assert desk.reports == []


def test_what_timed_out_and_is_requeued_has_all_the_time_once_more(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION_TIMEOUT_SECONDS", "1.2")
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.job()
    assert desk.execute(job)["status"] == "failed"
    looks = desk.backend.asked("/batches/")
    assert len(desk.services.claims.requeue(analyses.QUEUE)) == 1
    desk.run()
    assert desk.backend.asked("/batches/") > looks + 1
    desk.services.claims.requeue(analyses.QUEUE)
    desk.backend.status = {"status": "completed"}
    desk.run()
    assert desk.executions(job)[0]["status"] == "success"
    assert (len(desk.backend.orders), len(desk.reports)) == (1, 1)


def test_a_batch_that_two_executions_waited_for_in_vain_is_ordered_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION_TIMEOUT_SECONDS", "1.2")
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.job()
    for _ in range(2):
        assert "did not finish batch batch/0" in desk.execute(job)["analyses"][0]["error"]
        assert len(desk.backend.orders) == 1
    desk.backend.status = {"status": "completed"}
    assert desk.execute(job)["status"] == "success"
    assert (len(desk.backend.orders), len(desk.reports)) == (2, 1)


def test_a_run_leaves_a_slow_batch_to_a_later_run_which_submits_nothing_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "PATIENCE_SECONDS", 0.5)
    desk.seed(images=1)
    backend = desk.backend
    backend.status = {"status": "running"}
    job = desk.job()
    desk.ask(job)
    began = time.monotonic()
    assert desk.run().success
    assert time.monotonic() - began < 60
    assert desk.executions(job)[0]["status"] == "running"
    backend.status = {"status": "completed"}
    assert desk.run().success
    assert desk.executions(job)[0]["status"] == "success"
    assert (len(backend.orders), backend.images) == (1, 1)
    assert [report["filename"] for report in desk.reports] == ["report_batch_0.html"]


def test_what_an_analysis_got_over_is_no_error_of_its_success(desk: Desk) -> None:
    desk.seed(images=1)
    desk.backend.status = {"state": "a shape nobody knows"}
    job = desk.job()
    desk.ask(job)
    desk.run()
    assert "in a shape we do not know" in desk.executions(job)[0]["analyses"][0]["error"]
    desk.backend.status = {"status": "completed"}
    desk.run()
    (analysis,) = desk.executions(job)[0]["analyses"]
    assert (analysis["status"], analysis["error"]) == ("success", None)


def test_a_batch_the_backend_gave_up_is_ordered_anew_by_the_next_execution(desk: Desk) -> None:
    desk.seed(images=1)
    backend = desk.backend
    backend.status = {"status": "failed", "error": "out of paper"}
    job = desk.job()
    assert "out of paper" in desk.execute(job)["analyses"][0]["error"]
    backend.status = {"status": "completed"}
    assert desk.execute(job)["status"] == "success"
    assert len(backend.orders) == 2
    assert len(desk.reports) == 1


@pytest.mark.parametrize("status", [302, 401, 404])
def test_a_backend_that_takes_no_image_from_us_costs_the_report_none(desk: Desk, status: int) -> None:
    desk.seed(images=3, descriptions=False)
    desk.backend.image_refusals = {2: status}
    job = desk.job()
    execution = desk.execute(job)
    assert execution["status"] == "failed"
    assert f"(HTTP {status})" in execution["analyses"][0]["error"]
    assert (desk.backend.orders, desk.reports) == ({}, [])
    assert desk.execute(job)["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert (len(order["images"]), order["missing"]) == (3, [])


@pytest.mark.parametrize("status", [413, 422])
def test_an_image_that_a_backend_does_not_take_is_listed_and_the_others_are_analysed(desk: Desk, status: int) -> None:
    desk.seed(images=3, descriptions=False)
    desk.backend.image_refusals = {2: status}
    assert desk.execute()["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert len(order["images"]) == 2
    assert f"refused the request (HTTP {status})" in order["missing"][0]["reason"]


@pytest.mark.parametrize("told", [None, "", True, {}])
def test_an_image_that_a_backend_took_without_an_id_is_handed_over_again(desk: Desk, told: object) -> None:
    desk.seed(images=2, descriptions=False)
    desk.backend.image_ids = {2: told}
    assert desk.execute()["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert [image["image_id"] for image in order["images"]] == ["image-3", "image-4"]
    assert (order["missing"], len(desk.reports)) == ([], 1)


def test_a_report_that_is_no_html_is_not_delivered(desk: Desk) -> None:
    desk.seed(images=1)
    job = desk.job()
    for report in (b'{"detail": "oops"}', b"", b"PNG"):
        desk.backend.report = report
        assert desk.execute(job)["status"] == "failed"
    assert desk.reports == []


@pytest.mark.parametrize("status", [404, 409, 200])
def test_a_completed_batch_without_a_report_is_ordered_anew_by_the_next_execution(desk: Desk, status: int) -> None:
    desk.seed(images=1)
    job = desk.job()
    good = desk.backend.report
    desk.backend.report, desk.backend.report_status = b"{}", status
    assert desk.execute(job)["status"] == "failed"
    assert len(desk.backend.orders) == 1
    desk.backend.report, desk.backend.report_status = good, 200
    assert desk.execute(job)["status"] == "success"
    assert (len(desk.backend.orders), len(desk.reports)) == (2, 1)
