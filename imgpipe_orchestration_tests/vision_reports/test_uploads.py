"""A report arrives once, whatever becomes of its upload."""

from http.server import BaseHTTPRequestHandler

import pytest

from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import picture
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.conftest import Desk, listed_as


def test_after_an_upload_answered_500_nothing_is_sent_before_the_listing_can_be_had(desk: Desk) -> None:
    desk.seed(images=1)
    job = desk.job()
    desk.standins.fault("vision_analysis", "server_error", operation="upload", count=1)
    desk.standins.fault("vision_analysis", "server_error", operation="list", after=2, count=None)
    desk.ask(job)
    desk.run()
    desk.run()
    assert len(desk.standins.calls("vision_analysis", "upload")) == 1
    assert desk.executions(job)[0]["status"] == "running"
    desk.standins.admin("DELETE", "faults")
    desk.run()
    assert desk.executions(job)[0]["status"] == "success"
    assert (len(desk.reports), len(desk.backend.orders)) == (1, 1)


def test_an_upload_answered_500_twice_and_then_200_arrives_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "hurry", lambda: None)
    desk.seed(images=1)
    desk.standins.fault("vision_analysis", "server_error", operation="upload", count=2)
    job = desk.asked()
    with desk.dagster():
        wait_for(lambda: desk.executions(job)[0]["status"] == "success", "the report to arrive", 90)
    assert (len(desk.reports), len(desk.standins.calls("vision_analysis", "upload"))) == (1, 3)


@pytest.mark.parametrize("arrived", [True, False])
def test_after_an_upload_without_an_answer_the_listing_says_whether_it_is_sent_again(desk: Desk, arrived: bool) -> None:
    seeded = desk.seed(images=1, descriptions=False)
    taken: list[bytes] = []

    def deaf(handler: BaseHTTPRequestHandler, number: int) -> None:
        if handler.command == "GET":
            listed_as(*([] if arrived and taken else [seeded]))(handler, number)
        else:
            taken.append(server.requests[number][2])
            handler.close_connection = True
            if len(taken) == 3:
                reply(handler)

    with serving(deaf) as server:
        execution = desk.execute(external_api_get_url=server.url, external_api_post_url=server.url)
    assert execution["status"] == "success"
    assert len(taken) == (1 if arrived else 3)


def test_an_upload_whose_end_nobody_saw_is_not_sent_again(desk: Desk) -> None:
    """The run died after the external API had taken the report and before that could be written down."""
    desk.seed(images=1)
    job = desk.job()
    assert desk.execute(job)["status"] == "success"
    desk.sql("update work_items set state = 'waiting', owner = null where queue = 'vision_analyses'")
    desk.sql("update vision_analyses set status = 'submitted', delivered_at = null")
    desk.run()
    assert desk.sql("select status from vision_analyses")[0][0] == "delivered"
    assert len(desk.reports) == 1


def test_what_a_job_had_in_flight_when_its_api_moved_is_delivered_once(desk: Desk) -> None:
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.asked()
    desk.run()
    moved = desk.standins.analyses_url.replace("127.0.0.1", "localhost")
    assert desk.api.patch(f"/cron-jobs/{job}", json={"external_api_get_url": moved}).status_code == 200
    desk.backend.status = {"status": "completed"}
    assert desk.execute(job)["status"] == "success"
    (before,) = desk.executions(job)[1:]
    assert before["status"] == "failed"
    assert "pointed at another external API" in before["analyses"][0]["error"]
    assert len(desk.reports) == 1


def test_a_report_goes_to_no_organization_that_its_job_was_pointed_at_meanwhile(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALLOWED_PRIVATE_HOSTS", "127.0.0.1")
    moved: list[int] = []

    def document(handler: BaseHTTPRequestHandler, _: int) -> None:
        change = {"external_api_get_url": other.url, "external_api_post_url": other.url, "organization_id": "other"}
        moved.append(desk.api.patch(f"/cron-jobs/{job}", json=change).status_code)
        reply(handler, picture())

    with serving(document) as files, serving(listed_as()) as other:
        desk.seed(images=0, document_urls=[f"{files.url}/hull.jpg"])
        job = desk.job()
        execution = desk.execute(job)
        assert moved == [200]
        assert execution["status"] == "failed"
        assert "pointed at another external API" in execution["analyses"][0]["error"]
        assert [method for method, _, _ in other.requests] == []
    assert desk.reports == []
