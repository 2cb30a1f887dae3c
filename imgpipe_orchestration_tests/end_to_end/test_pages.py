"""The pages over the running stack: what a person asks for in the browser is done by the daemon and shown there."""

import os
import signal

import pytest
from playwright.sync_api import expect

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration_tests.end_to_end.conftest import Stack
from imgpipe_orchestration_tests.gateway.conftest import Visit, browser, visit

__all__ = ["browser", "visit"]

PATIENCE = 90_000
"""Milliseconds for what passes through a sensor and a run."""


@pytest.mark.slow
def test_two_browsers_follow_the_figures_through_a_restart_of_the_gateway(stack: Stack, visit: Visit) -> None:
    with visit(stack.gateway) as one, visit(stack.gateway) as two:
        for each in (one, two):
            # What the killed gateway was answering is broken off.
            each.allowed = ["ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "502"]
            each.allowed += ["ERR_INCOMPLETE_CHUNKED", "ERR_CONTENT_LENGTH_MISMATCH"]
            expect(each.go("/").get_by_text("As of")).to_be_visible()
        done = "li:has(a[href='/media']) dl > div:has-text('done today') dd"
        before = one.page.locator(done).inner_text()
        log = stack.up.data_dir / "logs" / "gateway.log"
        log.rename(log.with_suffix(".aside"))
        log.mkdir()  # keeps the gateway away until both have said that it is
        try:
            os.kill(stack.up.part("gateway")["pid"], signal.SIGKILL)
            for each in (one, two):
                expect(each.page.get_by_text("newer figures cannot be read")).to_be_visible(timeout=PATIENCE)
        finally:
            log.rmdir()
        for each in (one, two):
            expect(each.page.get_by_text("newer figures cannot be read")).to_be_hidden(timeout=PATIENCE)
        stack.upload(stack.new_user(), profile_image=photos.jpeg("astronaut"))
        for each in (one, two):
            expect(each.page.locator(done)).not_to_have_text(before, timeout=PATIENCE)
