"""A user whose files come slowly, or are reported slowly, beside one whose do not."""

import threading
from collections.abc import Callable
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from imgpipe_orchestration.media import runs
from imgpipe_orchestration.media.runs import SHARE
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.worker import today
from imgpipe_orchestration_tests.partners.wire import reply, serving

SLOW, GOOD = 1, 2


@pytest.mark.parametrize("slow", ["GET", "POST"])
def test_a_user_whose_files_or_reports_are_slow_does_not_hold_up_another(
    make_gateway: Callable[..., Gateway], slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is at work on the slow one's images of yesterday, more than it takes at once, and its batch is full when
    the good one uploads."""
    monkeypatch.setattr(runs, "BATCH_SIZE", SHARE)
    good_done, many = threading.Event(), SHARE + 3

    def main_api(handler: BaseHTTPRequestHandler, _: int) -> None:
        number = int("0" + handler.path.rpartition("/")[2].partition(".")[0]) if handler.command == "POST" else 1
        if handler.command == slow and number <= many and not good_done.is_set():
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not good_done.wait(0.5):
                handler.wfile.write(b" ")
                handler.wfile.flush()
            handler.close_connection = True
        elif handler.command == "GET":
            reply(handler, b"", 404)
        else:
            reply(handler, b'{"success": true}', Content_Type="application/json")

    with serving(main_api) as server:
        gateway = make_gateway(main_api_url=server.url, partner_timeout_seconds=120)
        for number in range(many):
            gateway.upload(SLOW, profile_image=picture(40, 30, seed=number))
        gateway.rows("update pending_images set created_at = created_at - interval '1 day'")
        if slow == "GET":
            bucket = gateway.services.media_bucket
            bucket.delete_all([one.key for one in bucket.list("temp_images/")])  # as where the main API keeps them
        yesterday = (date.fromisoformat(today()) - timedelta(days=1)).isoformat()
        run = threading.Thread(target=gateway.run_due, kwargs={"day": yesterday})
        run.start()
        reported = """
            select c.update_callback from processing_checklist c join media_files f on f.id = c.media_id
            where f.user_id = :user
        """
        try:
            wait_for(lambda: len(server.requests) >= SHARE, "the slow answers to be waited for", 60)
            gateway.upload(GOOD, profile_image=picture(seed=99))
            wait_for(lambda: gateway.rows(reported, user=GOOD) == [("completed",)], "the good one's report", 60)
            assert run.is_alive()
            states = gateway.rows("select distinct state from work_items where queue = 'media' and tenant = '1'")
            assert ("done",) not in states
        finally:
            good_done.set()
            run.join(120)
        assert not run.is_alive()
