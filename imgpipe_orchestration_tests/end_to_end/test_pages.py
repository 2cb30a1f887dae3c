"""The pages over the running stack: what a person asks for in the browser is done by the daemon and shown there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pymongo
import pytest
import requests
from playwright.sync_api import Page, expect

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration_tests.devstack.running import wait_for
from imgpipe_orchestration_tests.end_to_end.conftest import Stack
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit, browser, visit
from imgpipe_orchestration_tests.gateway.pages.cron_jobs import create_rename_and_switch_off, fill_in

__all__ = ["browser", "visit"]

PATIENCE = 90_000
"""Milliseconds for what passes through a sensor and a run."""


@pytest.fixture
def guest(stack: Stack, visit: Visit) -> Iterator[Visitor]:
    with visit(stack.gateway) as somebody:
        yield somebody


def shown(page: Page, words: str) -> None:
    """Waits for words that come once the daemon has done its work; the page looks again by itself."""
    expect(page.get_by_text(words).first).to_be_visible(timeout=PATIENCE)


def torn(tmp_path: Path) -> Path:
    file = tmp_path / "torn.jpg"
    file.write_bytes(photos.jpeg("chelsea")[:9000])
    return file


@pytest.mark.slow
def test_a_photograph_is_uploaded_becomes_ready_and_is_looked_at(stack: Stack, guest: Visitor, tmp_path: Path) -> None:
    user = stack.new_user()
    (tmp_path / "coffee.jpg").write_bytes(photos.jpeg("coffee"))
    page = guest.go("/upload")
    page.get_by_text("Choose another").click()
    page.get_by_label("User").fill(str(user))
    page.get_by_label("What they are").select_option("product_image")
    page.locator("#files").set_input_files(tmp_path / "coffee.jpg")
    expect(page.get_by_text("Ready", exact=True)).to_be_visible(timeout=PATIENCE)
    expect(page.locator("smart-image .box.there")).to_be_visible()
    page.get_by_role("link", name="coffee.jpg").click()
    expect(page.get_by_role("link", name="avif of thumbnail")).to_be_visible()
    expect(page.locator("smart-image .box.there").first).to_be_visible()
    run = page.get_by_role("link", name="last run").get_attribute("href") or ""
    assert run.rpartition("/")[2] in {one["runId"] for one in stack.runs("media_pipeline")}
    assert guest.axe() == []


@pytest.mark.slow
def test_every_link_to_dagster_leads_to_something(stack: Stack, guest: Visitor) -> None:
    query = """{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name }
        assetGroups { groupName } } } } }"""
    (repository,) = stack.graphql(query)["repositoriesOrError"]["nodes"]
    groups = {group["groupName"] for group in repository["assetGroups"]}
    page = guest.go("/")
    links = [a.get_attribute("href") or "" for a in page.get_by_role("link", name="assets of").all()]
    named = {tuple(link.split("/locations/")[1].split("/asset-groups/")) for link in links}
    pipelines = groups - {"lifecycle", "moderation"}  # which no card is about
    assert named == {(repository["location"]["name"], group) for group in pipelines} and len(links) == 5


@pytest.mark.slow
def test_a_customer_is_switched_on_and_run_now(stack: Stack, guest: Visitor) -> None:
    with pymongo.MongoClient[dict[str, object]](stack.environment["MONGODB_URL"]) as client:
        news = client.get_default_database(default="ichat")["news_document"]
        for n in range(3):
            news.insert_one({"customer_id": "pages-7", "image": f"https://x.example/{n}.jpg", "short_summary": "news"})
    page = guest.go("/processing?customer=pages-7")
    switch = page.get_by_role("switch", name="Automatic marking for pages-7").first
    for wanted, said in (("false", "marking is off"), ("true", "marking is on")):
        switch.focus()
        page.keyboard.press("Space")
        expect(page.get_by_role("status")).to_contain_text(said)
        expect(switch).to_have_attribute("aria-checked", wanted)
    page.get_by_role("button", name="Run now for pages-7").first.click()
    expect(page.get_by_role("status")).to_contain_text("starts within seconds")
    jobs = page.get_by_role("region", name="Table of jobs").get_by_role("row").filter(has_text="pages-7")
    expect(jobs.first).to_contain_text("completed", timeout=PATIENCE)
    expect(jobs.first.get_by_role("cell").nth(2)).to_have_text("3")
    expect(jobs.first.get_by_role("link")).to_be_visible()
    assert guest.axe() == []


@pytest.mark.slow
def test_a_cron_job_is_created_edited_switched_run_and_its_report_opened(stack: Stack, guest: Visitor) -> None:
    listing = stack.environment["EXTERNAL_API_GET_URL"]
    body = {"organization_id": "pages-org", "images": 2}
    standin = f"{listing.partition('/vision-analysis/')[0]}/_standin/vision-analyses"
    assert requests.post(standin, json=body, timeout=30).ok
    page = guest.go("/vision-reports/new")
    fill_in(
        page,
        organization="pages-org",
        schedule="0 0 1 1 *",
        listing=listing,
        upload=stack.environment["EXTERNAL_API_POST_URL"],
        token=stack.environment["EXTERNAL_API_KEY"],
    )
    create_rename_and_switch_off(page)
    page.get_by_role("button", name="Switch on").click()
    expect(page.get_by_role("status")).to_contain_text("Switched on")
    page.get_by_role("button", name="Run now").click()
    expect(page.get_by_role("link", name="open the report")).to_be_visible(timeout=2 * PATIENCE)
    expect(page.get_by_role("link", name="Dagster run")).to_be_visible()
    assert guest.axe() == []
    page.get_by_role("link", name="open the report").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("on 2 images")


@pytest.mark.slow
def test_people_are_asked_for_watched_and_taken_home(stack: Stack, guest: Visitor, tmp_path: Path) -> None:
    page = guest.go("/avatars")
    page.get_by_label("Who they are").fill("Beekeepers of the Alps")
    page.get_by_label("How many").fill("1")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("heading", name="Beekeepers of the Alps")).to_be_visible()
    expect(page.get_by_text("1 of 1 people")).to_be_visible(timeout=2 * PATIENCE)
    expect(page.locator(".faces img")).to_have_count(5)
    # Asked from here, as the page's policy lets no text be evaluated in it again and again.
    drawn = "[...document.querySelectorAll('.faces img')].every(i => i.complete && i.naturalWidth)"
    wait_for(lambda: page.evaluate(drawn), "the faces", PATIENCE / 1000)
    assert guest.axe() == []
    for name, start in (("CSV", b"result_id"), ("JSON Lines", b"{"), ("ZIP with pictures", b"PK")):
        with page.expect_download() as download:
            page.get_by_role("link", name=name).click()
        file = tmp_path / "export"
        download.value.save_as(file)
        assert start in file.read_bytes()[:400]


@pytest.mark.slow
def test_what_fails_is_listed_requeued_alone_and_together_and_ignored(
    stack: Stack, guest: Visitor, tmp_path: Path
) -> None:
    page = guest.go("/upload")
    page.get_by_text("Choose another").click()
    page.get_by_label("User").fill(str(stack.new_user()))
    for _ in range(2):
        page.locator("#files").set_input_files(torn(tmp_path))
    expect(page.locator(".state.bad")).to_have_count(2, timeout=PATIENCE)
    page.on("dialog", lambda dialog: dialog.accept())
    listed = guest.go("/failures?queue=media").locator(".letter").filter(has_text="torn.jpg")
    expect(listed).to_have_count(2)
    listed.first.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status")).to_contain_text("1 item waits again")

    def failed_again() -> bool:
        guest.go("/failures?queue=media")
        return listed.count() == 2

    wait_for(failed_again, "the requeued item to be tried again", 90)
    expect(listed.first).to_contain_text("attempts")
    page.get_by_role("button", name="Requeue this queue").click()
    expect(page.get_by_role("status")).to_contain_text("wait again")
    wait_for(failed_again, "both to be tried again", 90)
    for left in (1, 0):
        listed.first.get_by_role("button", name="Ignore").click()
        expect(page.get_by_role("status")).to_contain_text("is left as it is")
        guest.go("/failures")
        expect(listed).to_have_count(left)


@pytest.mark.slow
def test_listings_are_uploaded_and_the_failed_one_is_requeued(stack: Stack, guest: Visitor, tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(photos.jpeg("chelsea"))
    guest.allowed = ["404"]  # the torn one may fail between the page that shows it as waiting and the request for it
    page = guest.go("/listings")
    page.get_by_label("Title of the listing").fill("Basket with cat")
    page.get_by_label("Images", exact=True).set_input_files([tmp_path / "cat.jpg", torn(tmp_path)])
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("status")).to_contain_text("2 images queued for processing")
    tiles = page.get_by_role("list", name="Images of Basket with cat").locator(".tile")
    expect(tiles.filter(has_text="processed")).to_have_count(1, timeout=PATIENCE)
    expect(tiles.filter(has_text="failed")).to_have_count(1, timeout=PATIENCE)
    tiles.get_by_role("button", name="Requeue").click()
    expect(page.get_by_role("status")).to_contain_text("waits again")
    (number,) = stack.rows("select id from image_queue where original_name = 'torn.jpg' order by id desc limit 1")
    query = "select count(*) from work_attempts where queue = 'listings' and item_id = %s and outcome = 'failed'"
    wait_for(lambda: stack.rows(query, number[0])[0][0] == 2, "the second attempt", 90)


@pytest.mark.slow
def test_two_browsers_follow_the_figures_through_a_restart_of_the_gateway(stack: Stack, visit: Visit) -> None:
    with visit(stack.gateway) as one, visit(stack.gateway) as two:
        for each in (one, two):
            each.allowed = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET", "502"]
            expect(each.go("/").get_by_text("Live, as of")).to_be_visible()
        done = "li:has(a[href='/media']) dl > div:has-text('done today') dd"
        before = one.page.locator(done).inner_text()
        os.kill(stack.up.part("gateway")["pid"], signal.SIGKILL)
        for each in (one, two):
            expect(each.page.get_by_text("Not connected; figures of")).to_be_visible()
        for each in (one, two):
            expect(each.page.get_by_text("Live, as of")).to_be_visible(timeout=PATIENCE)
        stack.upload(stack.new_user(), profile_image=photos.jpeg("astronaut"))
        for each in (one, two):
            expect(each.page.locator(done)).not_to_have_text(before, timeout=PATIENCE)


PATHS = ("/", "/media", "/upload", "/listings", "/processing", "/vision-reports", "/vision-reports/new", "/avatars",
         "/failures", "/components", "/nothing-here")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_the_screen(stack: Stack, visit: Visit, scheme: str, width: int) -> None:
    found: dict[str, list[str]] = {}
    with visit(stack.gateway, color_scheme=scheme, viewport={"width": width, "height": 844}) as guest:
        guest.allowed = ["404"]  # of the page that is not there
        for path in PATHS:
            page = guest.go(path)
            problems = guest.axe()
            if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                problems.append("wider than the screen")
            if problems:
                found[path] = problems
    assert not found, json.dumps(found, indent=1)
