"""The pages of listings, image processing, vision reports and avatars: each does its job end to end."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from imgpipe_orchestration import resources
from imgpipe_orchestration.auto_marker.steps import carry_out, plan
from imgpipe_orchestration.auto_marker.store import ImageConfigs
from imgpipe_orchestration.avatars import work
from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.listings.drain import drain
from imgpipe_orchestration.listings.store import queue_of
from imgpipe_orchestration.storage.claims import Item
from imgpipe_orchestration.storage.rows import transaction
from imgpipe_orchestration_tests.auto_marker.conftest import seed
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.gateway.pages.cron_jobs import create_rename_and_switch_off, fill_in
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.partners.wire import reply, serving

MakeGateway = Callable[..., Gateway]


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
    drain(gateway.services, "run-1")
    guest.go("/listings")
    expect(page.get_by_text("processed", exact=True)).to_be_visible()
    assert guest.axe() == []
    page.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status")).to_contain_text("waits again")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped", exact=True)).to_be_visible()
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("working every 10s")).to_be_visible()


def test_a_listing_whose_title_is_blank_goes_by_its_file_name(guest: Visitor, tmp_path: Path) -> None:
    (tmp_path / "coffee.jpg").write_bytes(photos.jpeg("coffee"))
    page = guest.go("/listings")
    page.get_by_label("Title of the listing").fill("   ")
    page.get_by_label("Images", exact=True).set_input_files(tmp_path / "coffee.jpg")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("link", name="coffee.jpg")).to_be_visible()
    assert guest.axe() == []


def test_a_form_that_was_stopped_on_its_way_can_be_sent_again(guest: Visitor, gateway: Gateway) -> None:
    page = guest.go("/avatars")
    browser = page.context.new_cdp_session(page)
    ask = page.get_by_role("button", name="Ask")
    with transaction(gateway.services.engine) as connection:
        connection.execute(text("lock table generation_tasks"))  # so that no answer comes
        with page.expect_request("**/avatars"):
            ask.click(no_wait_after=True)
        browser.send("Page.stopLoading")
        with page.expect_request("**/avatars"):
            ask.click(no_wait_after=True)
    expect(page.get_by_role("status")).to_contain_text("Asked for")


def test_a_page_that_follows_its_work_keeps_what_is_typed_and_waits_for_a_gateway_that_is_away(
    guest: Visitor, gateway: Gateway
) -> None:
    with transaction(gateway.services.engine) as connection:
        gateway.services.claims.enqueue(connection, queue_of(gateway.settings), [Item(500)])
    guest.allowed = ["ERR_INTERNET_DISCONNECTED"]
    guest.page.clock.install()
    page = guest.go("/listings")
    waiting = page.locator(".figures dd").first
    expect(waiting).to_have_text("1")
    with transaction(gateway.services.engine) as connection:
        gateway.services.claims.enqueue(connection, queue_of(gateway.settings), [Item(501)])
    title = page.get_by_label("Title of the listing")
    title.fill("Blue bowl")
    page.get_by_role("heading", level=1).click()
    page.clock.run_for(9000)
    expect(title).to_have_value("Blue bowl")
    title.fill("")
    page.get_by_role("heading", level=1).click()
    page.context.set_offline(True)
    page.clock.run_for(9000)
    expect(waiting).to_have_text("1")
    page.context.set_offline(False)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    page.clock.run_for(5000)
    expect(waiting).to_have_text("2")
    assert page.evaluate("String(getSelection())") == "Listings", "what has not changed stays as it was"


def test_a_page_that_follows_its_work_gives_way_to_a_proxy_that_asks_to_sign_in(
    guest: Visitor, gateway: Gateway
) -> None:
    with transaction(gateway.services.engine) as connection:
        gateway.services.claims.enqueue(connection, queue_of(gateway.settings), [Item(500)])
    guest.page.clock.install()
    page = guest.go("/listings")
    page.route("**/listings", lambda route: route.fulfill(content_type="text/html", body="<h1>Sign in</h1>"))
    page.clock.run_for(5000)
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


@pytest.mark.parametrize("width", [320, 640])
def test_the_form_of_listings_fits_a_page_that_is_magnified(gateway: Gateway, visit: Visit, width: int) -> None:
    with visit(gateway.url, viewport={"width": width, "height": 500}) as guest:
        assert guest.go("/listings").evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_customer_is_toggled_by_keyboard_and_run_now(guest: Visitor, gateway: Gateway) -> None:
    expect(guest.go("/processing").get_by_role("heading", name="No news documents wait")).to_be_visible()
    seed(gateway.services, "acme & söhne/7", 3)
    seed(gateway.services, "globex", 2)
    page = guest.go("/processing")
    switch = page.get_by_role("switch", name="Automatic marking for acme & söhne/7").first
    expect(switch).to_have_attribute("aria-checked", "true")
    switch.focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("status")).to_contain_text("marking is off")
    expect(page.get_by_text("operator turned it off")).to_be_visible()
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
    list(carry_out(gateway.services, plan(gateway.services, scheduled=False), "run-1", batch_size=50))
    guest.go("/processing")
    row = page.get_by_role("row").filter(has_text="acme & söhne/7")
    expect(row.first.get_by_role("cell").nth(1)).to_have_text("3")
    expect(page.get_by_text("completed").first).to_be_visible()
    assert guest.axe() == []


@pytest.mark.parametrize("value", ["no", {"on": True}], ids=["text", "object"])
def test_a_toggle_that_is_neither_is_shown_as_such_and_can_be_switched(
    guest: Visitor, gateway: Gateway, value: object
) -> None:
    configs, documents = ImageConfigs(gateway.services.documents), gateway.services.documents
    for customer in ("acme", "globex", "off"):
        seed(gateway.services, customer, 1)
        configs.add_new(customer)
    configs.switch("off", False)
    documents.collection("image_config").update_one({"customer_id": "acme"}, {"$set": {"auto_mark_cleaned": value}})
    page = guest.go("/processing")
    switch = page.get_by_role("switch", name="Automatic marking for acme")
    expect(switch).to_have_attribute("aria-checked", "false")
    expect(switch).to_have_text("neither")
    expect(page.get_by_role("switch")).to_have_text(["neither", "on", "off"])
    page.get_by_role("link", name="acme").click()
    expect(page.get_by_text("not true or false. Nothing is marked until it is switched on.")).to_be_visible()
    assert guest.axe() == []
    page.get_by_role("switch", name="Automatic marking for acme").first.click()
    expect(page.get_by_text("Automatic marking is on since")).to_be_visible()
    assert [document["auto_mark_cleaned"] for document in configs.of("acme")] == [True]


@pytest.mark.parametrize("customer", ["a\nb", "x" * 2000], ids=["line break", "long"])
def test_a_customer_with_an_odd_id_is_shown_beside_the_others_and_switched(
    guest: Visitor, gateway: Gateway, customer: str
) -> None:
    seed(gateway.services, customer, 2)
    page = guest.go("/processing")
    expect(page.get_by_role("table").first.get_by_role("switch")).to_be_in_viewport()
    page.get_by_role("table").first.get_by_role("link").click()
    page.get_by_role("switch").first.click()
    expect(page.get_by_role("status")).to_contain_text("marking is off")
    assert ImageConfigs(gateway.services.documents).opted_out() == [customer]
    page.get_by_role("button", name="Run now").first.click()
    expect(page.get_by_role("status")).to_contain_text("starts within seconds")


def test_a_document_that_fails_in_every_run_is_counted_once(guest: Visitor, gateway: Gateway) -> None:
    seed(gateway.services, "acme", 2, image={"href": "https://example.com/not-text.jpg"})
    seed(gateway.services, "acme", 3)
    for n in range(3):
        list(carry_out(gateway.services, plan(gateway.services, scheduled=True), f"run-{n}", batch_size=50))
    page = guest.go("/processing")
    row = page.get_by_role("table").first.get_by_role("row").filter(has_text="acme")
    expect(row.get_by_role("cell").nth(1)).to_have_text("3")
    expect(row.get_by_role("cell").nth(2)).to_have_text("2")
    page = guest.go("/failures")
    expect(page.get_by_text("Image processing: 2 jobs failed in the last 24 hours.")).to_be_visible()


def run_both() -> None:
    """What the daemon would do: a round of the reports' job and one of our own backend's."""
    from imgpipe_orchestration.vision_reports.definitions import definitions

    merged = dg.Definitions.merge(definitions, dg.Definitions(resources=resources.build()))
    with dg.DagsterInstance.ephemeral() as instance:
        for job in ("vision_reports", "vision_batches"):
            merged.get_job_def(job).execute_in_process(instance=instance, raise_on_error=False)


@pytest.mark.slow
def test_a_cron_job_is_created_mended_run_and_its_report_opened(
    make_gateway: MakeGateway, visit: Visit, standins: StandInAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = make_gateway(
        openai_api_key=f"key-{uuid.uuid4()}",
        openai_base_url=standins.openai_url,
        allowed_private_hosts=standins.url.removeprefix("http://"),
        backend_api_url="",  # follows the gateway
    )
    for name, value in gateway.settings.environment().items():
        monkeypatch.setenv(name, value)
    standins.admin("POST", "vision-analyses", {"organization_id": "acme"})
    with visit(gateway.url) as guest:
        guest.allowed = ["422"]
        page = guest.go("/vision-reports")
        assert guest.axe() == []
        page.get_by_role("link", name="Create the first one").click()
        fill_in(
            page,
            organization="acme",
            schedule="every morning",
            listing=standins.analyses_url,
            upload=f"{standins.analyses_url}/upload",
            token="customer-token-5f1c0a7be2",
        )
        page.get_by_role("button", name="Create").click()
        expect(page.get_by_role("alert")).to_be_visible()
        expect(page.get_by_label("Schedule")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label("Name")).to_have_value("Morning reports")
        assert guest.axe() == []
        page.get_by_label("Schedule").fill("0 6 * * *")
        page.get_by_label("Bearer token of both").fill("customer-token-5f1c0a7be2")
        create_rename_and_switch_off(page)
        page.get_by_role("button", name="Run now").click()
        expect(page.get_by_text("running", exact=True)).to_be_visible()
        here = page.url.partition("?")[0]
        # In a thread: the browser's library has an event loop running in this one, and Dagster starts its own.
        with ThreadPoolExecutor(1) as workshop:
            for _ in range(4):
                gateway.rows("update work_items set due_at = now() where due_at > now() and owner is null returning 1")
                workshop.submit(run_both).result()
                page.goto(here)
                if page.get_by_role("link", name="open the report").count():
                    break
        assert guest.axe() == []
        page.goto(f"{gateway.url}/vision-reports")
        expect(page.get_by_text("success", exact=True)).to_be_visible()
        page.goto(here)
        page.get_by_role("link", name="open the report").click()
        expect(page.get_by_text("Vision report", exact=False).first).to_be_visible()
        page.goto(here)
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("heading", name="No cron jobs yet")).to_be_visible()


def test_a_cron_job_that_never_ran_is_in_the_list(guest: Visitor) -> None:
    page = guest.go("/vision-reports/new")
    address = "https://api.example/analyses"
    fill_in(page, organization="acme", schedule="0 6 * * *", listing=address, upload=address, token="a-token")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="Morning reports")).to_be_visible()
    expect(guest.go("/vision-reports").get_by_text("has not run yet")).to_be_visible()


def test_two_tabs_that_edit_a_cron_job_change_what_was_changed_in_them(guest: Visitor, gateway: Gateway) -> None:
    guest.allowed = ["422"]
    page = guest.go("/vision-reports/new")
    address = "https://api.example/analyses?sig=secret"
    fill_in(page, organization="acme", schedule="0 6 * * *", listing=address, upload=address, token="a-token")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("Address that lists analyses")).not_to_have_value(address)
    other = page.context.new_page()
    other.goto(page.url)
    other.get_by_label("Schedule").fill("15 3 * * *")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_role("status")).to_contain_text("Saved")
    page.get_by_label("Name").fill("")
    page.get_by_label("Name").evaluate("field => field.required = false")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("Name")
    page.get_by_label("Name").fill("Evening reports")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("status")).to_contain_text("Saved")
    assert [tuple(row) for row in gateway.rows("select name, schedule, external_api_get_url from cron_jobs")] == [
        ("Evening reports", "15 3 * * *", address)
    ]


def test_a_cron_jobs_form_whose_hidden_field_was_changed_is_refused(guest: Visitor) -> None:
    guest.allowed = ["422"]
    page = guest.go("/vision-reports/new")
    address = "https://api.example/analyses"
    fill_in(page, organization="acme", schedule="0 6 * * *", listing=address, upload=address, token="a-token")
    page.get_by_role("button", name="Create").click()
    page.get_by_role("link", name="Edit").click()
    page.locator("input[name=before]").evaluate("field => field.value = 'no JSON'")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("JSON")


def test_what_is_wrong_with_a_cron_job_is_said_by_the_fields_name(guest: Visitor) -> None:
    guest.allowed = ["422"]
    page = guest.go("/vision-reports/new")
    address = "https://api.example/analyses"
    fill_in(page, organization="acme", schedule="0 6 * * *", listing=address, upload=address, token="a-token")
    page.get_by_label("Name").fill("x" * 500)
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("alert")).to_contain_text("Name: ")
    expect(page.get_by_label("Name")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Organization")).to_have_value("acme")


def test_people_are_asked_for_watched_looked_at_and_taken_home(
    make_gateway: MakeGateway, visit: Visit, standins: StandInAccess
) -> None:
    gateway = make_gateway(
        openai_api_key=f"key-{uuid.uuid4()}",
        openai_base_url=standins.openai_url,
        flowise_base_url=standins.flowise_url,
        avatar_base_size="384x384",
        avatar_grid_size="768x768",
        avatar_least_side=200,
        avatar_thumbnail_side=128,
    )
    with visit(gateway.url) as guest:
        page = guest.go("/avatars")
        assert guest.axe() == []
        page.get_by_label("Who they are").fill("Gardeners in Lisbon")
        page.get_by_label("How many").fill("2")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_role("heading", name="The people are being invented")).to_be_visible()
        expect(page.locator("progress")).to_be_visible()
        assert guest.axe() == []
        work.run_data(gateway.services, "run-1")
        work.run_images(gateway.services, "run-2")
        expect(page.locator(".faces img")).to_have_count(10)
        expect(page.locator(".faces img").first).to_have_js_property("naturalWidth", 128)
        expect(page.locator(".faces img").last).to_have_js_property("naturalWidth", 128)
        assert guest.axe() == []
        with page.expect_download() as csv:
            page.get_by_role("link", name="CSV").click()
        assert Path(csv.value.path()).read_text().count("\n") >= 3
        guest.go("/avatars")
        expect(page.get_by_role("link", name="Gardeners in Lisbon")).to_be_visible()


def test_a_request_that_brought_nobody_is_shown_as_failed(make_gateway: MakeGateway, visit: Visit) -> None:
    def nobody(handler: BaseHTTPRequestHandler, _: int) -> None:
        reply(handler, b'{"json": [{}]}', Content_Type="application/json")

    with serving(nobody) as flowise:
        gateway = make_gateway(flowise_base_url=flowise.url)
        with visit(gateway.url) as guest:
            page = guest.go("/avatars")
            page.get_by_role("button", name="Ask").click()
            expect(page.get_by_role("heading", name="The people are being invented")).to_be_visible()
            work.run_data(gateway.services, "run-1")
            for path in (page.url.removeprefix(gateway.url), "/avatars"):
                guest.go(path)
                expect(page.locator(".tag", has_text="failed").first).to_have_class("tag bad")
                expect(page.locator("progress"), "nothing is on its way").not_to_be_attached()


def test_long_words_stay_on_the_page_and_a_request_that_was_stopped_says_so(gateway: Gateway, visit: Visit) -> None:
    brief = "b" * 4000
    with visit(gateway.url, viewport={"width": 360, "height": 760}) as guest:
        page = guest.go("/avatars")
        page.get_by_label("Who they are").fill(brief)
        page.get_by_label("Style of the pictures").fill("s" * 500)
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_text(brief)).to_be_visible()
        assert len(page.get_by_role("heading", level=1).inner_text()) < 200
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("heading", name="Nobody was invented")).to_be_visible()
        expect(guest.go("/avatars").get_by_text(brief)).not_to_be_attached()
        gateway.upload(1, profile_image=picture()[:3000])
        gateway.run_due()
        gateway.rows("update media_files set original_name = repeat('n', 250) returning id")
        for path in ("/avatars", "/media/1", "/failures", "/failures/media/1", "/"):
            guest.go(path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
