"""Cron jobs that are deleted while something of theirs is under way."""

from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from imgpipe_orchestration.lifecycle import trash
from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration.vision_reports.lifecycle import BATCHES
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.partners.wire import serving
from imgpipe_orchestration_tests.vision_reports.conftest import Desk


def test_what_a_deleted_job_had_in_flight_is_left_to_another_job_and_is_nobodys_failure(desk: Desk) -> None:
    desk.seed(images=1)
    desk.backend.status = {"status": "running"}
    job = desk.asked()
    desk.run()
    assert desk.api.delete(f"/cron-jobs/{job}").status_code == 200
    assert desk.run().success
    assert desk.sql("select error from vision_analyses")[0][0] == "The cron job that found this analysis was deleted."
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


@pytest.mark.parametrize("deleted", ["the job", "the batch"])
def test_what_is_deleted_while_it_waits_for_a_batch_of_the_provider_has_that_cancelled(
    desk: Desk, deleted: str
) -> None:
    def batches() -> list[Any]:
        return desk.sql("select * from ai_batches where batch_id is not null")

    desk.standins.admin("POST", "delays", {"openai.batch_work": 600})
    desk.seed(images=2)
    with desk.serving(patience=0.2) as gateway:
        job = desk.asked(backend_api_url=gateway, urgent=False)
        desk.run()
        wait_for(batches, "the batch to be sent")
        if deleted == "the job":
            assert desk.api.delete(f"/cron-jobs/{job}").status_code == 200
        else:
            number = int(batches()[0].item.split("/")[1])
            what = f"vision_batches/{number}"
            trash.delete(desk.services, BATCHES, what, [number], user=None, who="a test", purge=True)
        assert deletion.due(desk.services)
        assert deletion.run(desk.services, "purge-1")["ai_batches_cancelled"] == 1
    assert (len(desk.standins.calls("openai", "batch_cancel")), batches()) == (1, [])
    assert desk.sql("select count(*) from paid_calls")[0][0] == 0
    if deleted == "the job":
        desk.standins.admin("POST", "delays", {"openai.batch_work": 0})
        with desk.serving() as gateway:
            assert desk.execute(backend_api_url=gateway, urgent=False)["status"] == "success", "of another job"
        assert len(desk.standins.calls("openai", "responses")) == 2
