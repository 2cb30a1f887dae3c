"""The page of listings: uploads, what becomes of them, and a page that follows its work."""

from pathlib import Path

from playwright.sync_api import expect

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.listings.runs import Drained, drain
from imgpipe_orchestration.listings.store import QUEUE
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.storage.claims.shorthand import put


def test_a_listing_is_uploaded_becomes_webp_and_a_failure_is_requeued(
    guest: Visitor, gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "coffee.jpg").write_bytes(photos.jpeg("coffee"))
    (tmp_path / "broken.jpg").write_bytes(photos.jpeg("chelsea")[:9000])
    page = guest.go("/listings")
    expect(page.get_by_role("heading", name="No listing has images yet")).to_be_visible()
    assert guest.axe() == []
    page.get_by_label("Title of the listing").fill("Blue bowl")
    page.get_by_label("Images", exact=True).set_input_files([tmp_path / "coffee.jpg", tmp_path / "broken.jpg"])
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("status")).to_contain_text("queued for processing")
    drain(gateway.services, "run-1", Drained())
    guest.go("/listings")
    expect(page.get_by_text("processed", exact=True)).to_be_visible()
    expect(page.locator(".tile", has_text="failed")).to_contain_text("Ask for it to be re-saved and uploaded again.")
    page.get_by_role("button", name="Requeue image").click()
    expect(page.get_by_role("status")).to_contain_text("waits again")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("runs every 10 s")).to_be_visible()


def test_a_page_that_follows_its_work_keeps_what_is_typed_and_waits_for_a_gateway_that_is_away(
    guest: Visitor, gateway: Gateway
) -> None:
    put(gateway.services.claims, 500, queue=QUEUE)
    guest.allowed = ["ERR_INTERNET_DISCONNECTED"]
    guest.page.clock.install()
    page = guest.go("/listings")
    waiting = page.locator(".figures dd").first
    expect(waiting).to_have_text("1")
    put(gateway.services.claims, 501, queue=QUEUE)
    title = page.get_by_label("Title of the listing")
    title.fill("Blue bowl")
    page.get_by_role("heading", level=1).click()
    page.clock.run_for(5000)
    expect(waiting).to_have_text("2")
    expect(title).to_have_value("Blue bowl")
    page.context.set_offline(True)
    put(gateway.services.claims, 502, queue=QUEUE)
    page.clock.run_for(9000)
    expect(waiting).to_have_text("2")
    page.context.set_offline(False)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    page.clock.run_for(5000)
    expect(waiting).to_have_text("3")
    assert page.evaluate("String(getSelection())") == "Listings", "what has not changed stays as it was"
