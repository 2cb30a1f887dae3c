"""A user whose files come slowly beside one whose do not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

from imgpipe_orchestration.media.runs import SHARE
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.partners.wire import reply, serving

SLOW, GOOD = 1, 2


def test_a_user_whose_files_come_slowly_does_not_hold_up_another(make_gateway: Callable[..., Gateway]) -> None:
    """The good one comes while the run is at work on the slow one's, of whom more wait than the run takes at once."""
    good_done = threading.Event()

    def main_api(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.command != "GET":
            reply(handler, b'{"success": true}', Content_Type="application/json")
        elif good_done.is_set():
            reply(handler, b"", 404)
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            while not good_done.wait(0.5):
                handler.wfile.write(b"x")
                handler.wfile.flush()
            handler.close_connection = True

    with serving(main_api) as server:
        gateway = make_gateway(main_api_url=server.url, partner_timeout_seconds=120)
        for number in range(SHARE + 3):
            gateway.upload(SLOW, profile_image=picture(40, 30, seed=number))
        bucket = gateway.services.media_bucket
        bucket.delete_all([one.key for one in bucket.list("temp_images/")])  # as where the main API keeps them
        run = threading.Thread(target=gateway.run_due)
        run.start()
        reported = """
            select c.update_callback from processing_checklist c join media_files f on f.id = c.media_id
            where f.user_id = :user
        """
        try:
            wait_for(lambda: len(server.requests) >= SHARE, "the slow files to be asked for", 60)
            gateway.upload(GOOD, profile_image=picture(seed=99))
            wait_for(lambda: gateway.rows(reported, user=GOOD) == [("completed",)], "the good one's report", 60)
            assert run.is_alive()
            states = gateway.rows("select distinct state from work_items where queue = 'media' and tenant = '1'")
            assert ("done",) not in states
        finally:
            good_done.set()
            run.join(120)
        assert not run.is_alive()
