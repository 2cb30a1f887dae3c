"""External APIs, file servers and backends that refuse, lie, forget or do not finish."""

import json
import time
from datetime import UTC, date, datetime
from typing import Any

import pytest

from imgpipe_orchestration.partners.fetch import Fetcher
from imgpipe_orchestration.partners.ssrf import Guard
from imgpipe_orchestration.vision_reports import listing, model, steps
from imgpipe_orchestration.vision_reports.assets import DAYS
from imgpipe_orchestration.vision_reports.model import Document
from imgpipe_orchestration.vision_reports.steps import gather
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.conftest import Desk


def test_a_wrong_token_fails_the_execution_at_once_and_says_so(desk: Desk) -> None:
    desk.seed(images=1)
    desk.standins.fault("vision_analysis", "unauthorized", count=None)
    execution = desk.execute()
    assert execution["status"] == "failed"
    assert "does not accept our credential (HTTP 401)" in execution["error"]
    assert len(desk.standins.calls("vision_analysis")) == 1


def test_what_cannot_be_used_of_the_list_has_failed_for_the_organization_it_names(desk: Desk) -> None:
    good = desk.seed(images=1)
    bad: dict[str, Any] = {**good, "vision_analysis_id": None}
    others = {**bad, "organization_id": "somebody-else"}
    execution, _ = desk.execute_over(bad, others, {**bad, "organization_id": None}, good)
    assert (execution["status"], execution["total"], execution["successful"], execution["failed"]) == (
        "partial", 2, 1, 1,
    )  # fmt: skip
    assert execution["error"] == (
        "Entries of the list that cannot be used: 1 (an entry without an id: vision_analysis_id: Field required). "
        "Entries of the list that name no organization: 1 (an entry without an id: vision_analysis_id: Field required)."
    )
    execution, _ = desk.execute_over(bad)
    assert (execution["status"], execution["total"], execution["failed"]) == ("failed", 1, 1)


@pytest.mark.parametrize(
    ("limit", "most", "taken", "told"),
    [
        ("MOST_ANALYSES", 2, 2, "More than 2 analyses are unprocessed; the others are left to later executions."),
        ("LIST_SECONDS", 0.0, 1, "needs more than 0 s to list what is unprocessed; the others are left to later"),
    ],
)
def test_more_than_one_execution_takes_is_left_to_the_next_and_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, limit: str, most: float, taken: int, told: str
) -> None:
    """The analyses of all other organizations wait for a list."""
    monkeypatch.setattr(listing, limit, most)
    monkeypatch.setenv("VISION_PAGE_SIZE", "1")
    for _ in range(taken + 1):
        desk.seed(images=1, descriptions=False)
    job = desk.job()
    first = desk.execute(job)
    assert (first["status"], first["total"]) == ("success", taken)
    assert told in first["error"]
    second = desk.execute(job)
    assert (second["status"], second["total"]) == ("success", 1)
    assert len(desk.reports) == taken + 1


@pytest.mark.parametrize(
    ("created", "day"),
    [
        ("2024-02-29T10:00:00Z", "2025-01-01"),
        ("2026-02-28T23:30:00-05:00", "2026-03-01"),
        ("2093-01-01T00:00:00Z", "today"),
    ],
)
def test_the_day_of_creation_is_a_partition(desk: Desk, created: str, day: str) -> None:
    desk.execute_over({**desk.seed(images=1), "created_date": created})
    kept = desk.sql("select created_day from vision_analyses")[0][0]
    assert kept == (datetime.now(UTC).date() if day == "today" else date.fromisoformat(day))
    assert DAYS.has_partition_key(kept.isoformat())


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
    monkeypatch.setattr(steps, "IMAGE_BYTES", 1_000_000)
    lies: list[tuple[str, dict[str, Any], str]] = [
        ("not_json", {}, "not an image but a web page"),
        ("huge_file", {"size": 200 * 1024 * 1024}, "more than the 1,000,000 bytes allowed"),
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


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ({"descriptions": {"hull.jpg": "Port side"}}, "no image has a text in it"),
        ([{"hull.jpg": "Port side"}], "it is not a JSON object"),
        ({"hull.jpg": None}, None),
        ({}, None),
    ],
)
def test_descriptions_in_another_shape_are_noted(written: Any, told: str | None) -> None:
    with serving(lambda handler, _: reply(handler, json.dumps(written).encode())) as server:
        _, _, notes = gather(
            [Document("texts.json", f"{server.url}/texts.json", "json")],
            fetcher=Fetcher(Guard.parse(f"127.0.0.1:{server.port}")),
            stopped=lambda: None,
            patient=False,
            hand_over=lambda _: "1",
        )
    expected = [f"The descriptions in texts.json could not be used: {told}"] if told else []
    assert [note[: len(expected[0])] for note in notes] == expected


def test_a_batch_that_takes_too_long_is_ordered_anew_by_the_next_execution(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "BATCH_SECONDS", 0.4)
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.job()
    for number in range(2):
        assert f"did not finish batch batch/{number}" in desk.execute(job)["analyses"][0]["error"]
        assert len(desk.backend.orders) == number + 1
    desk.backend.status = {"status": "completed"}
    assert desk.execute(job)["status"] == "success"
    assert (len(desk.backend.orders), len(desk.reports)) == (3, 1)


def test_a_batch_whose_analysis_failed_meanwhile_has_its_time_again(desk: Desk) -> None:
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.asked()
    assert desk.run().success
    desk.sql("update vision_analyses set status = 'failed', submitted_at = now() - interval '2 hours'")
    desk.sql("update work_items set state = 'failed' where queue = 'vision_analyses'")
    desk.ask(job)
    assert desk.run().success
    assert desk.sql("select status from vision_analyses") == [("submitted",)]
    assert len(desk.backend.orders) == 1


def test_a_run_leaves_a_slow_batch_to_a_later_run_which_submits_nothing_anew(desk: Desk) -> None:
    desk.seed(images=1)
    backend = desk.backend
    backend.status = {"status": "running"}
    job = desk.asked()
    began = time.monotonic()
    assert desk.run().success
    assert time.monotonic() - began < 60
    assert desk.executions(job)[0]["status"] == "running"
    backend.status = {"status": "completed"}
    assert desk.run().success
    assert desk.executions(job)[0]["status"] == "success"
    assert (len(backend.orders), backend.images) == (1, 1)
    assert [report["filename"] for report in desk.reports] == ["report_batch_0.html"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"status": {"status": "failed", "error": "out of paper"}}, "out of paper"),
        ({"status": {"status": "lost"}}, "the batch is 'lost', which we do not know"),
        ({"status_status": 404}, "does not know batch 'batch/0' (HTTP 404)"),
        ({"status_status": 422}, "does not know batch 'batch/0' (HTTP 422)"),
        ({"report": b"{}", "report_status": 404}, ""),
        ({"report": b"{}", "report_status": 200}, ""),
    ],
)
def test_a_batch_that_was_given_up_or_has_no_report_is_ordered_anew_by_the_next_execution(
    desk: Desk, change: dict[str, Any], told: str
) -> None:
    desk.seed(images=1)
    backend, job = desk.backend, desk.job()
    good = {name: getattr(backend, name) for name in change}
    vars(backend).update(change)
    execution = desk.execute(job)
    assert execution["status"] == "failed" and told in execution["analyses"][0]["error"]
    assert len(backend.orders) == 1
    vars(backend).update(good)
    assert desk.execute(job)["status"] == "success"
    assert (len(backend.orders), len(desk.reports)) == (2, 1)


def test_a_backend_that_takes_no_image_from_us_costs_the_report_none(desk: Desk) -> None:
    desk.seed(images=3, descriptions=False)
    desk.backend.image_refusals = {2: 401}
    job = desk.job()
    execution = desk.execute(job)
    assert execution["status"] == "failed"
    assert "(HTTP 401)" in execution["analyses"][0]["error"]
    assert (desk.backend.orders, desk.reports) == ({}, [])
    assert desk.execute(job)["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert (len(order["images"]), order["missing"]) == (3, [])


def test_an_image_that_a_backend_does_not_take_is_listed_and_the_others_are_analysed(desk: Desk) -> None:
    desk.seed(images=3, descriptions=False)
    desk.backend.image_refusals = {2: 413}
    assert desk.execute()["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert len(order["images"]) == 2
    assert "refused the request (HTTP 413)" in order["missing"][0]["reason"]


@pytest.mark.parametrize("told", [None, {}])
def test_an_image_that_a_backend_took_without_an_id_is_handed_over_again(desk: Desk, told: object) -> None:
    desk.seed(images=2, descriptions=False)
    desk.backend.image_ids = {2: told}
    assert desk.execute()["status"] == "success"
    (order,) = desk.backend.orders.values()
    assert [image["image_id"] for image in order["images"]] == ["image-3", "image-4"]
    assert (order["missing"], len(desk.reports)) == ([], 1)
