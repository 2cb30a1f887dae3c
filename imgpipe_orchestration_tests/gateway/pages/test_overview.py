"""The overview: five pipelines, figures that follow, links to Dagster."""

from playwright.sync_api import Locator, Page, expect

from imgpipe_orchestration.errors import PartnerUnavailable, SpendingPaused
from imgpipe_orchestration.lifecycle.cdn import CDN_PURGES
from imgpipe_orchestration.listings.store import QUEUE
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.pages.rows import fail, finish
from imgpipe_orchestration_tests.media.conftest import Gateway
from imgpipe_orchestration_tests.storage.claims import shorthand
from imgpipe_orchestration_tests.storage.claims.shorthand import put


def card(page: Page, heading: str) -> Locator:
    return page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=heading, exact=True))


def listings(page: Page, figure: str) -> Locator:
    return card(page, "Listings").locator("dl > div").filter(has_text=figure).locator("dd")


def test_the_overview_shows_five_pipelines_and_follows_them_live(guest: Visitor, gateway: Gateway) -> None:
    queue = QUEUE
    finish(gateway.services, queue, list(range(1, 25)))
    fail(gateway.services, queue, [100, 101], "The image is truncated: it ends after 1200 of 48213 bytes.")
    page = guest.go("/")
    for name in ("Media", "Listings", "Auto-marker", "Vision reports", "Avatars"):
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    expect(listings(page, "done today")).to_have_text("24")
    expect(listings(page, "failed")).to_have_text("2")
    expect(page.get_by_text("As of")).to_be_visible()
    assert guest.axe() == []
    put(gateway.services.claims, *range(500, 507), queue=queue)
    expect(listings(page, "waiting")).to_have_text("7")
    finish(gateway.services, queue, [])
    link = page.get_by_role("link", name="runs of Listings in Dagster").get_attribute("href") or ""
    assert link.startswith(gateway.settings.dagster_url)


def test_overviews_in_tabs_that_nobody_looks_at_leave_room_for_others(guest: Visitor, gateway: Gateway) -> None:
    """A browser has six connections to a host."""
    tabs = [guest.page.context.new_page() for _ in range(7)]
    for tab in tabs:
        tab.add_init_script("Object.defineProperty(document, 'hidden', {get: () => window.away === true})")
        tab.goto(gateway.url)
        expect(tab.get_by_text("As of")).to_be_visible()
        tab.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange'))")
    put(gateway.services.claims, 500, queue=QUEUE)
    tabs[0].evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    expect(listings(tabs[0], "waiting")).to_have_text("1")


def test_a_pipeline_says_why_what_waits_is_not_done(guest: Visitor, gateway: Gateway) -> None:
    claims, queue = gateway.services.claims, QUEUE
    shown = card(guest.go("/"), "Listings")
    expect(shown.locator(".notice").first).to_be_hidden()
    put(claims, 1, 2, queue=queue)
    for claim in claims.claim(queue, "run", 2):
        shorthand.fail(claims, claim, SpendingPaused("the daily budget of 5 USD is used up"), queue)
    expect(shown.get_by_text("2 waiting: The daily budget of 5 USD is used up.")).to_be_visible()
    put(claims, 1, queue=CDN_PURGES)
    for claim in claims.claim(CDN_PURGES, "run", 1):
        shorthand.fail(claims, claim, PartnerUnavailable("the CDN is away"), CDN_PURGES)
    expect(guest.page.get_by_text("CDN purges: 1 waiting: The CDN is away.")).to_be_visible()


def test_the_api_is_documented_without_another_host(guest: Visitor) -> None:
    page = guest.go("/docs")
    expect(page.get_by_role("heading", name="API", exact=True)).to_be_visible()
    operation = page.locator(".opblock").filter(has_text="/api/media/search")
    expect(operation).to_contain_text("Images by text, by colour or by likeness")
    operation.locator(".opblock-summary").click()
    expect(operation.get_by_text("Not authenticated", exact=False).first).to_be_visible()
