"""Failures: everything that was given up, requeued or left, by mouse and by keyboard."""

from dataclasses import replace

import requests
from playwright.sync_api import expect

from imgpipe_orchestration.errors import ImageTooSlow, RateLimited
from imgpipe_orchestration.listings.store import QUEUE
from imgpipe_orchestration.media.store import MEDIA
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.gateway.pages.rows import fail, failed_media
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.storage.claims import shorthand
from imgpipe_orchestration_tests.storage.claims.shorthand import put


def failed(gateway: Gateway) -> dict[str, int]:
    return {name: counts.failed for name, counts in gateway.services.claims.counts().items() if counts.failed}


def test_one_failure_is_requeued_one_ignored_and_the_rest_of_a_queue_at_once(guest: Visitor, gateway: Gateway) -> None:
    failed_media(gateway.services, 3)
    once = replace(QUEUE, max_attempts=1)
    fail(gateway.services, once, [11], ImageTooSlow("The image took longer than 300 s."))
    page = guest.go("/failures")
    expect(page.locator(".letter", has_text="The file is no image.").first).to_contain_text("Retry once")
    expect(page.locator(".letter", has_text="300 s")).to_contain_text("requeue the image at a quiet time")
    assert guest.axe() == []
    page.get_by_role("button", name="Requeue media 2").click()
    expect(page.get_by_role("status")).to_contain_text("1 item waits again")
    page.get_by_role("button", name="Ignore media 1").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("1 item is left as it is")
    assert failed(gateway) == {"media": 1, "listings": 1}
    page.get_by_role("link", name="media 1").first.click()
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Requeue this queue").click()
    expect(page.get_by_role("status")).to_contain_text("1 item waits again")
    assert failed(gateway) == {"listings": 1}


def test_a_page_that_was_empty_counts_what_is_picked_of_what_comes(guest: Visitor, gateway: Gateway) -> None:
    page = guest.go("/failures")
    expect(page.get_by_role("heading", name="Nothing here has failed")).to_be_visible()
    failed_media(gateway.services, 1)
    bar = page.get_by_role("form", name="What is selected")
    expect(bar).to_contain_text("0 selected")
    expect(bar.get_by_role("button", name="Requeue")).to_be_disabled()
    page.get_by_label("Select Item 1").check()
    expect(bar).to_contain_text("1 selected")
    bar.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status")).to_contain_text("1 item waits again")


def test_no_box_that_has_the_focus_is_under_the_bar(guest: Visitor, gateway: Gateway) -> None:
    failed_media(gateway.services, 30)
    page = guest.go("/failures")
    bar, boxes = page.get_by_role("form", name="What is selected"), page.get_by_label("Select Item")
    boxes.last.focus()
    while boxes.first.evaluate("box => box !== document.activeElement"):
        page.keyboard.press("Shift+Tab")
        edge, top = bar.bounding_box(), page.locator(":focus").bounding_box()
        assert edge and top and top["y"] >= edge["y"] + edge["height"]


def test_what_pauses_is_tried_again_now(guest: Visitor, gateway: Gateway) -> None:
    claims = gateway.services.claims
    put(claims, 1, queue=MEDIA)
    with transaction(gateway.services.engine) as connection:
        connection.exec_driver_sql("insert into spending_pauses values ('openai', now() + interval '1 d', 'poor')")
    for claim in claims.claim(MEDIA, "a run", 1):
        shorthand.fail(claims, claim, RateLimited("Flowise asks for patience", retry_after=80_000), MEDIA)
    page = guest.go("/")
    page.get_by_role("link", name="Try again").click()
    pausing = page.get_by_role("region", name="Paused")
    expect(pausing.get_by_role("listitem")).to_contain_text(["OpenAI is paused until", "Media: 1 waiting: Flowise"])
    page.get_by_role("button", name="Try again now").click()
    expect(page.get_by_role("status")).to_have_text("The pauses are over. 1 item is tried again.")
    expect(pausing.get_by_text("OpenAI")).not_to_be_attached()
    assert [claim.item_id for claim in claims.claim(MEDIA, "another run", 9)] == [1]


def test_the_attempts_of_an_item_name_reason_time_and_run(guest: Visitor, gateway: Gateway) -> None:
    failed_media(gateway.services, 1)
    page = guest.go("/failures")
    page.get_by_role("link", name="1 attempt at media 1").click()
    expect(page.get_by_role("cell", name="The file is no image.")).to_be_visible()
    link = page.get_by_role("link", name="0f5a7c52").get_attribute("href")
    assert link == f"{gateway.settings.dagster_url}/runs/0f5a7c52-run"


def test_what_is_ignored_has_a_list_from_which_it_is_taken_back(guest: Visitor, gateway: Gateway) -> None:
    failed_media(gateway.services, 2)
    page = guest.go("/failures")
    expect(page.get_by_role("link", name="ignored")).not_to_be_attached()
    page.get_by_role("button", name="Ignore media 1").click()
    page.get_by_role("link", name="ignored").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ignored failures")
    expect(page.locator(".letter")).to_have_count(1)
    expect(page.get_by_role("button", name="Requeue")).not_to_be_attached()
    page.get_by_role("button", name="Stop ignoring media 1").click()
    expect(page.get_by_role("status")).to_contain_text("1 item counts as failed again")
    expect(page.get_by_role("heading", name="Nothing is ignored")).to_be_visible()
    assert failed(gateway) == {"media": 2}
    guest.go("/failures?queue=listings&ignored=true")
    expect(page.get_by_role("heading", name="Nothing is ignored")).to_be_visible()


def test_a_hostile_reason_is_text_and_a_narrow_dark_screen_shows_it(gateway: Gateway, visit: Visit) -> None:
    reason = "<img src=x onerror=alert(1)> " + "x" * 400
    fail(gateway.services, QUEUE, [11], reason)
    narrow = {"width": 360, "height": 740}
    with visit(gateway.url, viewport=narrow, color_scheme="dark") as guest:
        page = guest.go("/failures")
        expect(page.get_by_text("onerror=alert(1)")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_form_of_another_site_is_refused(gateway: Gateway) -> None:
    failed_media(gateway.services, 1)
    for headers, data in (
        ({}, {}),
        ({}, {"form_token": "guessed"}),
        ({"Origin": "https://evil.example"}, {"form_token": "guessed"}),
        ({"Origin": "http://["}, {"form_token": "guessed"}),
        ({"Referer": "http://[", "Accept": "text/html"}, {"form_token": "guessed"}),
        ({"Referer": "https://evil.example/", "Accept": "text/html"}, {"form_token": "guessed"}),
        ({"Sec-Fetch-Site": "cross-site"}, {}),
    ):
        answer = requests.post(f"{gateway.url}/failures/requeue", data=data, headers=headers, timeout=10)
        assert answer.status_code == 403
    assert failed(gateway) == {"media": 1}
