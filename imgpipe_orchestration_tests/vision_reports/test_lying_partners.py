"""An external API, file servers and backends that do not do what they should."""

from __future__ import annotations

import json
import tempfile
import time
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.partners.fetch import Fetcher, FetchLimits
from imgpipe_orchestration.partners.ssrf import AllowList
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import analyses
from imgpipe_orchestration.vision_reports.assets import DAYS
from imgpipe_orchestration.vision_reports.backends import Picture
from imgpipe_orchestration.vision_reports.inputs import gather
from imgpipe_orchestration.vision_reports.model import Document
from imgpipe_orchestration_tests.partners.wire import Behaviour, reply, serving
from imgpipe_orchestration_tests.vision_reports.conftest import ORGANIZATION, Desk


def test_a_wrong_token_fails_the_execution_at_once_and_says_so(desk: Desk) -> None:
    desk.seed(images=1)
    desk.standins.fault("vision_analysis", "unauthorized", count=None)
    execution = desk.execute()
    assert execution["status"] == "failed"
    assert "does not accept our credential (HTTP 401)" in execution["error"]
    assert len(desk.standins.calls("vision_analysis")) == 1


def test_a_list_that_cannot_be_had_for_a_while_is_asked_for_again(desk: Desk) -> None:
    faults: dict[str, dict[str, Any]] = {
        "rate_limit": {"retry_after": 0.3, "count": 1},
        "server_error": {"count": 2},
        "truncated_json": {"count": 1},
        "wrong_shape": {"count": 1},
        "cut": {"count": 1},
    }
    job = desk.job()
    for number, (kind, options) in enumerate(faults.items(), 1):
        desk.seed(images=1, descriptions=False)
        desk.standins.fault("vision_analysis", kind, operation="list", **options)
        execution = desk.execute(job)
        assert (execution["status"], execution["successful"]) == ("success", 1), kind
        assert len(desk.reports) == number


def test_a_list_in_another_shape_fails_the_execution_in_the_end(desk: Desk) -> None:
    desk.standins.fault("vision_analysis", "wrong_shape", count=None)
    execution = desk.execute()
    assert execution["status"] == "failed"
    assert "in a shape we do not know" in execution["error"]


def test_pages_without_end_are_read_once(desk: Desk) -> None:
    desk.seed(images=1)
    desk.standins.fault("vision_analysis", "endless_pages", operation="list", count=None)
    execution = desk.execute()
    assert (execution["status"], execution["total"]) == ("success", 1)
    assert len(desk.standins.calls("vision_analysis", "list")) <= 3


def test_analyses_of_another_organization_are_left_alone(desk: Desk) -> None:
    desk.seed(images=1, organization_id="somebody-else")
    desk.seed(images=1)
    execution = desk.execute()
    assert (execution["status"], execution["total"]) == ("success", 1)
    assert [report["organization_id"] for report in desk.reports] == [ORGANIZATION]


def test_what_is_no_image_is_listed_with_its_reason_and_the_others_are_analysed(desk: Desk) -> None:
    hosts = desk.settings.allowed_private_hosts
    desk.seed(
        images=2,
        descriptions=False,
        document_urls=[f"http://{hosts}/health", "http://127.0.0.1:9/secret.jpg", "ftp://example.com/a.jpg"],
    )
    execution = desk.execute()
    assert execution["status"] == "success"
    assert (execution["analyses"][0]["images_total"], execution["analyses"][0]["images_usable"]) == (5, 2)
    (order,) = desk.backend.orders.values()
    reasons = " ".join(missing["reason"] for missing in order["missing"])
    assert "127.0.0.1 is a private or reserved address" in reasons
    assert "Only http and https links are fetched" in reasons


def test_an_analysis_without_a_usable_image_fails_with_the_reason_and_uploads_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION_IMAGE_MAX_BYTES", "1000000")
    lies: list[tuple[str, dict[str, Any], str]] = [
        ("html_file", {}, "not an image but a web page"),
        ("huge_file", {"size": 200 * 1024 * 1024}, "more than the 1,000,000 allowed"),
        ("redirect", {"location": "http://127.0.0.1:9/latest/meta-data"}, "private or reserved address"),
        ("redirect", {"location": "file:///etc/passwd"}, "we do not fetch"),
        ("not_found", {}, "HTTP 404"),
    ]
    desk.seed(images=1, descriptions=False)
    job = desk.job()
    for kind, options, reason in lies:
        desk.standins.admin("DELETE", "faults")
        desk.standins.fault("files", kind, count=None, **options)
        execution = desk.execute(job)
        assert (execution["status"], execution["failed"]) == ("failed", 1), kind
        assert reason in execution["analyses"][0]["error"]
    assert desk.reports == []


def test_what_cannot_be_had_at_this_moment_is_tried_again_before_a_report_goes_out_without_it(desk: Desk) -> None:
    seeded = desk.seed(images=2)
    image, descriptions = (seeded["documents"][n]["document_name"] for n in (1, 2))
    for name in (image, descriptions):
        desk.standins.fault("files", "rate_limit", match=name, retry_after=600, count=1)
    execution = desk.execute()
    assert (execution["status"], execution["analyses"][0]["images_usable"]) == ("success", 2)
    (order,) = desk.backend.orders.values()
    assert (order["missing"], order["notes"]) == ([], [])
    assert all(image["description"] for image in order["images"])


def test_a_report_goes_out_without_an_image_whose_server_stays_away(desk: Desk) -> None:
    seeded = desk.seed(images=2, descriptions=False)
    gone = seeded["documents"][1]["document_name"]
    desk.standins.fault("files", "rate_limit", match=gone, retry_after=600, count=None)
    execution = desk.execute()
    assert (execution["status"], execution["analyses"][0]["images_usable"]) == ("success", 1)
    (order,) = desk.backend.orders.values()
    assert [missing["name"] for missing in order["missing"]] == [gone]


def test_an_image_needs_no_room_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))  # nothing can be written there
    handed: list[Picture] = []
    with serving(lambda handler, _: reply(handler, photos.jpeg("coffee"))) as server:
        gather(
            [Document("hull.jpg", f"{server.url}/hull.jpg", "image")],
            fetcher=Fetcher(AllowList.parse(f"127.0.0.1:{server.port}")),
            limits=FetchLimits(),
            max_images=1,
            patient=False,
            hand_over=lambda picture: handed.append(picture) or "1",
        )
    assert [(picture.name, picture.mime) for picture in handed] == [("hull.jpg", "image/jpeg")]


def test_descriptions_that_are_not_json_are_noted_and_not_fatal(desk: Desk) -> None:
    desk.seed(images=1)
    desk.standins.fault("files", "html_file", match="descriptions", count=1)
    execution = desk.execute()
    assert execution["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert "could not be used: it is not JSON" in order["notes"][0]


@pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_descriptions_are_read_in_every_charset_that_json_comes_in(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, charset: str
) -> None:
    seeded = desk.seed(images=1)
    image, descriptions = seeded["documents"]
    written = json.dumps({image["document_name"]: "Rost am Rumpf – größer"}, ensure_ascii=False).encode(charset)
    with serving(lambda handler, _: reply(handler, written)) as server:
        monkeypatch.setenv("ALLOWED_PRIVATE_HOSTS", "127.0.0.0/8")
        descriptions["document_path"] = f"{server.url}/descriptions.json"
        execute_over(desk, {**seeded, "documents": [image, descriptions]})
    (order,) = desk.backend.orders.values()
    assert [one["description"] for one in order["images"]] == ["Rost am Rumpf – größer"]
    assert order["notes"] == []


def listed_as(*entries: Any) -> Behaviour:
    """An external API that lists these, whatever it is asked, and takes every report."""
    data = {"page": 1, "total": len(entries), "vision_analysis": list(entries)}
    body = json.dumps({"code": 200, "status": "success", "data": data}).encode()
    return lambda handler, _: reply(handler, body if handler.command == "GET" else b"")


def execute_over(desk: Desk, *entries: Any) -> tuple[dict[str, Any], list[bytes]]:
    """An execution over such an API, and the reports that were sent to it."""
    with serving(listed_as(*entries)) as server:
        execution = desk.execute(external_api_get_url=server.url, external_api_post_url=server.url)
        return execution, [body for _, _, body in server.requests if body]


def test_what_cannot_be_used_of_the_list_has_failed_for_the_organization_it_names(desk: Desk) -> None:
    good = desk.seed(images=1)
    bad: dict[str, Any] = {**good, "vision_analysis_id": None}
    others = {**bad, "organization_id": "somebody-else"}
    execution, _ = execute_over(desk, bad, others, {**bad, "organization_id": None}, good)
    assert (execution["status"], execution["total"], execution["successful"], execution["failed"]) == (
        "partial", 2, 1, 1,
    )  # fmt: skip
    assert execution["error"] == (
        "1 entries of the list cannot be used. an entry without an id: vision_analysis_id: Field required "
        "1 entries of the list name no organization. an entry without an id: vision_analysis_id: Field required"
    )
    execution, _ = execute_over(desk, bad)
    assert (execution["status"], execution["total"], execution["failed"]) == ("failed", 1, 1)


def test_more_than_one_execution_takes_is_left_to_the_next_and_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION_MAX_ANALYSES", "2")
    monkeypatch.setenv("VISION_PAGE_SIZE", "1")
    for _ in range(3):
        desk.seed(images=1, descriptions=False)
    job = desk.job()
    first = desk.execute(job)
    assert (first["status"], first["total"]) == ("success", 2)
    assert first["error"] == "More than 2 analyses are unprocessed; the others are left to later executions."
    second = desk.execute(job)
    assert (second["status"], second["total"], second["error"]) == ("success", 1, None)
    assert len(desk.reports) == 3


@pytest.mark.parametrize("strange", ["two  spaces", "\xa0nbsp", "\ufeffbom", "y" * 300])
def test_an_id_goes_back_exactly_as_it_came(desk: Desk, strange: str) -> None:
    execution, (report,) = execute_over(desk, {**desk.seed(images=1), "vision_analysis_id": strange})
    assert execution["status"] == "success"
    assert b'name="vision_analysis_id"\r\n\r\n' + strange.encode() + b"\r\n" in report


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "yesterday", None])
def test_a_strange_moment_of_creation_is_today(desk: Desk, created: str | None) -> None:
    execution, _ = execute_over(desk, {**desk.seed(images=1), "created_date": created})
    assert execution["status"] == "success"
    with transaction(desk.services.engine) as rows:
        assert rows.scalar(text("select created_day = (now() at time zone 'utc')::date from vision_analyses"))


@pytest.mark.parametrize(
    ("created", "day"),
    [
        ("2024-02-29T10:00:00Z", "2025-01-01"),
        ("2026-02-28T23:30:00-05:00", "2026-03-01"),
        ("2093-01-01T00:00:00Z", "today"),
    ],
)
def test_the_day_of_creation_is_a_partition(desk: Desk, created: str, day: str) -> None:
    execute_over(desk, {**desk.seed(images=1), "created_date": created})
    with transaction(desk.services.engine) as rows:
        kept = rows.scalar(text("select created_day from vision_analyses"))
    assert kept == (datetime.now(UTC).date() if day == "today" else date.fromisoformat(day))
    assert DAYS.has_partition_key(kept.isoformat())


def test_documents_of_one_name_share_its_description_and_no_other_name(desk: Desk) -> None:
    seeded = desk.seed(images=3)
    first, second, third, descriptions = seeded["documents"]
    name = first["document_name"]
    second["document_name"], third["document_name"] = name, f"{name} (2)"
    execute_over(desk, {**seeded, "documents": [first, second, third, 5, descriptions]})
    (order,) = desk.backend.orders.values()
    described = "Section 1: look for rust"
    assert [image["description"] for image in order["images"]] == [described, described, ""]
    assert order["missing"] == [{"name": "document", "reason": "the list gives no usable address for it"}]
    uploads = [body for path, _, body in desk.backend.server.requests if path.endswith("/images")]
    for body, unique in zip(uploads, (name, f"{name} (3)", f"{name} (2)"), strict=True):
        assert f'filename="{unique}"'.encode() in body


def test_a_link_with_spaces_in_it_is_followed(desk: Desk) -> None:
    seeded = desk.seed(images=1, run_code="TWO WORDS", descriptions=False)
    (document,) = seeded["documents"]
    assert "%20" in document["document_path"]
    document["document_path"] = f" {document['document_path'].replace('%20', ' ')} "
    execution, _ = execute_over(desk, seeded)
    assert (execution["status"], execution["analyses"][0]["images_usable"]) == ("success", 1)


def test_one_that_fails_fails_alone_and_is_red_in_the_run(desk: Desk) -> None:
    desk.seed(images=0, run_code="EMPTY", descriptions=False)
    desk.seed(images=1, run_code="GOOD")
    job = desk.job()
    desk.ask(job)
    run = desk.run()
    ended = {e.step_key: e.event_type_value for e in run.all_events if e.event_type_value.startswith("STEP_")}
    states = {key.split("[")[1][:4]: event for key, event in ended.items() if "[" in key}
    assert states == {"EMPT": "STEP_FAILURE", "GOOD": "STEP_SUCCESS"}
    (execution,) = desk.executions(job)
    assert (execution["status"], execution["total"], execution["successful"], execution["failed"]) == (
        "partial", 2, 1, 1,
    )  # fmt: skip
    assert execution["run_url"].endswith(f"/runs/{run.run_id}")
    assert [entry["status"] for entry in execution["analyses"]] == ["failed", "success"]


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
    monkeypatch.setenv("VISION_PATIENCE_SECONDS", "0.5")
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


def test_a_report_that_is_no_html_is_not_delivered(desk: Desk) -> None:
    desk.seed(images=1)
    job = desk.job()
    for report in (b'{"detail": "oops"}', b"", b"PNG"):
        desk.backend.report = report
        assert desk.execute(job)["status"] == "failed"
    assert desk.reports == []


@pytest.mark.parametrize(("status", "body"), [(404, b"{}"), (409, b"{}"), (200, b"{}")])
def test_a_completed_batch_without_a_report_is_ordered_anew_by_the_next_execution(
    desk: Desk, status: int, body: bytes
) -> None:
    desk.seed(images=1)
    job = desk.job()
    good = desk.backend.report
    desk.backend.report, desk.backend.report_status = body, status
    assert desk.execute(job)["status"] == "failed"
    assert len(desk.backend.orders) == 1
    desk.backend.report, desk.backend.report_status = good, 200
    assert desk.execute(job)["status"] == "success"
    assert (len(desk.backend.orders), len(desk.reports)) == (2, 1)


def test_an_analysis_listed_twice_is_taken_up_once(desk: Desk) -> None:
    desk.seed(images=1)
    one, other = desk.job(), desk.job(name="the same API once more")
    desk.ask(one)
    desk.ask(other)
    desk.ask(one)
    desk.run()
    totals = [e["total"] for job in (one, other) for e in desk.executions(job)]
    assert sorted(totals) == [0, 0, 1]
    assert len(desk.reports) == 1


def test_what_a_deleted_job_had_in_flight_is_left_to_another_job_and_is_nobodys_failure(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISION_PATIENCE_SECONDS", "0.2")
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
    entry = {"vision_analysis_id": "A1", "organization_id": ORGANIZATION}
    listing = json.dumps({"code": 200, "status": "success", "data": {"vision_analysis": [entry]}}).encode()
    jobs: list[str] = []

    def delete_and_answer(handler: BaseHTTPRequestHandler, number: int) -> None:
        if number == 0:
            assert desk.api.delete(f"/cron-jobs/{jobs[0]}").status_code == 200
        reply(handler, listing, Content_Type="application/json")

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
