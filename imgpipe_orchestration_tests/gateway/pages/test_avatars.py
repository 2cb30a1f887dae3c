"""The pages of avatars: people are asked for, watched, looked at and taken home."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from imgpipe_orchestration.avatars import work
from imgpipe_orchestration.devstack.postgres import Postgres
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.gateway.conftest import Visit
from imgpipe_orchestration_tests.listings.conftest import database_away
from imgpipe_orchestration_tests.media.conftest import Gateway

MakeGateway = Callable[..., Gateway]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgpipe_orchestration.avatars.drawing.BASE_SIZE", "384x384")
    monkeypatch.setattr("imgpipe_orchestration.avatars.drawing.GRID_SIZE", "768x768")


def drawing(make_gateway: MakeGateway, standins: StandInAccess) -> Gateway:
    """A gateway whose people are invented and drawn by the stand-ins, in small."""
    return make_gateway(
        openai_api_key=f"key-{uuid.uuid4()}",
        openai_base_url=standins.openai_url,
        flowise_base_url=standins.flowise_url,
    )


def test_people_are_asked_for_watched_looked_at_and_taken_home(
    make_gateway: MakeGateway, visit: Visit, standins: StandInAccess
) -> None:
    gateway = drawing(make_gateway, standins)
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
        expect(page.locator(".faces img").first).to_have_js_property("naturalWidth", 256)
        expect(page.locator(".faces img").last).to_have_js_property("naturalWidth", 256)
        assert guest.axe() == []
        with page.expect_download() as csv:
            page.get_by_role("link", name="CSV").click()
        assert Path(csv.value.path()).read_text().count("\n") >= 3
        guest.go("/avatars")
        expect(page.get_by_role("link", name="Gardeners in Lisbon")).to_be_visible()


def test_somebody_whose_picture_was_refused_shows_why_and_what_may_help(
    make_gateway: MakeGateway, visit: Visit, standins: StandInAccess
) -> None:
    gateway = drawing(make_gateway, standins)
    with visit(gateway.url) as guest:
        page = guest.go("/avatars")
        page.get_by_label("How many").fill("2")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_text("0 of 2 people")).to_be_visible()
        work.run_data(gateway.services, "run-1")
        standins.fault("openai", "content_policy", operation="images", count=1)
        work.run_images(gateway.services, "run-2")
        expect(page.locator(".person .bad.notice")).to_have_text(
            "OpenAI refused for its content policy. The provider rejected the request."
            " Retrying won't help until you change what it rejected."
        )


def test_what_was_typed_during_an_outage_is_there_again_after_it(
    guest: Visitor, gateway: Gateway, postgres_server: Postgres
) -> None:
    page = guest.go("/avatars")
    page.get_by_label("Who they are").fill("Gardeners in Lisbon")
    page.get_by_label("How many").fill("2")
    guest.allowed = ["503"]
    with database_away(gateway.settings, postgres_server):
        page.get_by_role("button", name="Ask").click()
        page.get_by_role("link", name="Back to the form").click()
        expect(page.get_by_role("heading", name="Backend unavailable")).to_be_visible()
        expect(page.get_by_role("link", name="Back to the form")).to_be_hidden()
    expect(page.get_by_role("alert")).to_contain_text("The database cannot be reached")
    expect(page.get_by_label("Who they are")).to_have_value("Gardeners in Lisbon")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_text("0 of 2 people")).to_be_visible()


def test_what_happened_is_told_once_and_in_our_own_words_only(guest: Visitor) -> None:
    page = guest.go("/avatars")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("status")).to_contain_text("Asked for")
    page.reload()
    expect(page.get_by_text("0 of 3 people")).to_be_visible()
    expect(page.get_by_role("status")).to_have_count(0)
    assert "notice" not in page.url
    page.get_by_role("link", name="Overview").click()
    guest.go("/avatars?notice=Your+key+has+expired.&trouble=Call+555.")
    expect(page.get_by_role("heading", name="Ask for people")).to_be_visible()
    expect(page.get_by_text("555")).to_have_count(0)
    expect(page.get_by_text("expired")).to_have_count(0)
