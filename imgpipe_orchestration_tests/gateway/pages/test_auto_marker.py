"""The auto-marker's page: customers, their toggles and their last rounds."""

from collections.abc import Callable

import requests
from playwright.sync_api import expect

from imgpipe_orchestration.auto_marker.runs import begin_round, mark_round
from imgpipe_orchestration.gateway import session
from imgpipe_orchestration.identity.model import Role
from imgpipe_orchestration_tests.auto_marker.conftest import seed
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.test_limits import KEYS
from imgpipe_orchestration_tests.media.conftest import Gateway, picture


def test_a_customer_is_toggled_by_keyboard_and_run_now(guest: Visitor, gateway: Gateway) -> None:
    expect(guest.go("/processing").get_by_role("heading", name="No pending news documents")).to_be_visible()
    seed(gateway.services, "acme & söhne/7", 3)
    seed(gateway.services, "globex", 2)
    page = guest.go("/processing")
    switch = page.get_by_role("switch", name="Automatic marking for acme & söhne/7").first
    expect(switch).to_have_attribute("aria-checked", "true")
    switch.focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("status")).to_contain_text("marking is off")
    page.get_by_role("link", name="Who switched it, and when").click()
    expect(page.get_by_role("row").filter(has_text="switch auto-marker")).to_contain_text("acme & söhne/7")
    page.go_back()
    page.emulate_media(forced_colors="active")
    knobs = page.get_by_role("table").first.locator(".knob")
    expect(knobs).to_have_count(2)
    assert knobs.nth(0).screenshot() != knobs.nth(1).screenshot()
    page.emulate_media(forced_colors="none")
    assert guest.axe() == []
    page.get_by_role("switch", name="Automatic marking for acme & söhne/7").first.click()
    expect(page.get_by_role("status")).to_contain_text("marking is on")
    page.get_by_role("button", name="Run now for acme & söhne/7").first.click()
    expect(page.get_by_role("status")).to_contain_text("starts within seconds")
    mark_round(gateway.services, [], "run-1", lambda _: None)
    guest.go("/processing")
    row = page.get_by_role("row").filter(has_text="acme & söhne/7")
    expect(row.first.get_by_role("cell").nth(1)).to_have_text("3")
    expect(page.get_by_text("completed").first).to_be_visible()


def test_viewers_are_shown_states_whose_buttons_they_lack(make_gateway: Callable[..., Gateway]) -> None:
    gateway = make_gateway(imgpipe_env="production", **KEYS)
    seed(gateway.services, "acme", 2)
    gateway.finish(7, profile_image=picture())
    viewer = {session.COOKIE: session.cookie_of(gateway.settings, "vera", Role.VIEWER)}
    listings, markers, image = (
        requests.get(gateway.url + path, cookies=viewer, timeout=30).text
        for path in ("/listings", "/processing", "/media/1")
    )
    assert '<span class="tag good">runs every 10 s</span>' in listings
    assert '<span class="tag good">on</span>' in markers
    assert "The thumbnail crop" in image and "focus.js" not in image, "it would look for the form"


def test_a_document_that_fails_in_every_run_is_counted_once(guest: Visitor, gateway: Gateway) -> None:
    seed(gateway.services, "acme", 2, image={"href": "https://example.com/not-text.jpg"})
    seed(gateway.services, "acme", 3)
    for n in range(3):
        mark_round(gateway.services, begin_round(gateway.services)[0], f"run-{n}", lambda _: None)
    page = guest.go("/processing")
    row = page.get_by_role("table").first.get_by_role("row").filter(has_text="acme")
    expect(row.get_by_role("cell").nth(1)).to_have_text("3")
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    page = guest.go("/failures")
    expect(page.get_by_text("Auto-marker: jobs of 1 customer failed in the last 24 hours.")).to_be_visible()
    expect(page.get_by_role("heading", name="Nothing else has failed")).to_be_visible()
