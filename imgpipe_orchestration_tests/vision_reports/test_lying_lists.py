"""External APIs whose list does not come, is not whole, or holds what cannot be used."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from sqlalchemy import text

from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration.vision_reports import listing
from imgpipe_orchestration.vision_reports.assets import DAYS
from imgpipe_orchestration_tests.partners.wire import serving
from imgpipe_orchestration_tests.vision_reports.conftest import ORGANIZATION, Desk, listed_as


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


def test_more_than_one_execution_takes_is_left_to_the_next_and_said(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_ANALYSES", 2)
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


def test_reports_that_the_api_accepted_and_lost_are_named_in_the_next_executions(desk: Desk) -> None:
    seeded = desk.seed(images=1, descriptions=False)
    with serving(listed_as(seeded)) as forgetful:
        job = desk.job(external_api_get_url=forgetful.url, external_api_post_url=forgetful.url)
        assert desk.execute(job)["successful"] == 1
        assert desk.execute(job)["error"] is None, "its list may be late"
        with transaction(desk.services.engine) as rows:
            rows.execute(text("update vision_analyses set delivered_at = delivered_at - interval '2 hours'"))
        execution = desk.execute(job)
    assert (execution["status"], execution["total"]) == ("success", 0)
    assert f"over an hour ago: 1 ({seeded['vision_analysis_id']}). A backfill" in execution["error"]


def test_a_list_that_takes_too_long_is_taken_as_far_as_it_came(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The analyses of all other organizations wait for it."""
    monkeypatch.setattr(listing, "LIST_SECONDS", 0.0)
    monkeypatch.setenv("VISION_PAGE_SIZE", "1")
    for _ in range(2):
        desk.seed(images=1, descriptions=False)
    job = desk.job()
    first = desk.execute(job)
    assert (first["status"], first["total"]) == ("success", 1)
    assert first["error"].endswith(
        "needs more than 0 s to list what is unprocessed; the others are left to later executions."
    )
    assert desk.execute(job)["total"] == 1
    assert len(desk.reports) == 2


def test_one_of_which_nothing_was_read_in_time_is_tried_again_and_says_why(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "LIST_SECONDS", 0.0)
    foreign = {**desk.seed(images=1), "organization_id": "somebody-else"}
    with serving(listed_as(foreign)) as api:
        job = desk.job(external_api_get_url=f"{api.url}/list")
        desk.ask(job)
        desk.run()
    (execution,) = desk.executions(job)
    assert execution["status"] == "running"
    assert "needs more than 0 s to list what is unprocessed" in execution["error"]


@pytest.mark.parametrize("strange", ["two  spaces", "\xa0nbsp", "\ufeffbom", "y" * 300])
def test_an_id_goes_back_exactly_as_it_came(desk: Desk, strange: str) -> None:
    execution, (report,) = desk.execute_over({**desk.seed(images=1), "vision_analysis_id": strange})
    assert execution["status"] == "success"
    assert b'name="vision_analysis_id"\r\n\r\n' + strange.encode() + b"\r\n" in report


@pytest.mark.parametrize("created", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "yesterday", None])
def test_a_strange_moment_of_creation_is_today(desk: Desk, created: str | None) -> None:
    execution, _ = desk.execute_over({**desk.seed(images=1), "created_date": created})
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
    desk.execute_over({**desk.seed(images=1), "created_date": created})
    with transaction(desk.services.engine) as rows:
        kept = rows.scalar(text("select created_day from vision_analyses"))
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
