"""The pages of avatars: people are asked for, watched, looked at and taken home."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from imgpipe_orchestration.avatars import runs
from imgpipe_orchestration.operations import deletion
from imgpipe_orchestration_tests.conftest import StandInAccess
from imgpipe_orchestration_tests.gateway.browser import Visitor
from imgpipe_orchestration_tests.media.conftest import Gateway


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgpipe_orchestration.avatars.drawing.BASE_SIZE", "384x384")
    monkeypatch.setattr("imgpipe_orchestration.avatars.drawing.GRID_SIZE", "768x768")


@pytest.fixture
def gateway(make_gateway: Callable[..., Gateway], standins: StandInAccess) -> Gateway:
    """A gateway whose people are invented and drawn by the stand-ins, in small."""
    return make_gateway(
        openai_api_key=f"key-{uuid.uuid4()}",
        openai_base_url=standins.openai_url,
        flowise_base_url=standins.flowise_url,
    )


def test_people_are_asked_for_watched_looked_at_and_taken_home(guest: Visitor, gateway: Gateway) -> None:
    page = guest.go("/avatars")
    assert guest.axe() == []
    page.get_by_label("Who they are").fill("Gardeners in Lisbon")
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Request", exact=True).click()
    expect(page.get_by_role("heading", name="The people are being invented")).to_be_visible()
    expect(page.locator("progress")).to_be_visible()
    runs.run_data(gateway.services, "run-1")
    runs.run_images(gateway.services, "run-2")
    expect(page.locator(".faces img")).to_have_count(10)
    expect(page.locator(".faces img").first).to_have_js_property("naturalWidth", 256)
    expect(page.locator(".faces img").last).to_have_js_property("naturalWidth", 256)
    assert page.request.get(f"{page.url.partition('?')[0]}/1_0/base").status == 422, "no number of a person"
    with page.expect_download() as csv:
        page.get_by_role("link", name="CSV").click()
    assert Path(csv.value.path()).read_text().count("\n") >= 3
    guest.go("/avatars")
    expect(page.get_by_role("link", name="Gardeners in Lisbon")).to_be_visible()


def test_somebody_whose_picture_was_refused_shows_why_and_what_may_help(
    guest: Visitor, gateway: Gateway, standins: StandInAccess
) -> None:
    page = guest.go("/avatars")
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Request", exact=True).click()
    expect(page.get_by_text("0 of 2 people")).to_be_visible()
    runs.run_data(gateway.services, "run-1")
    standins.fault("openai", "content_policy", operation="images", count=1)
    runs.run_images(gateway.services, "run-2")
    expect(page.locator(".person .bad.notice")).to_have_text(
        "OpenAI refused for its content policy. The provider rejected the request."
        " Retrying won't help until you change what it rejected."
    )


def test_of_a_stopped_request_the_page_says_until_when_its_people_are_kept(guest: Visitor, gateway: Gateway) -> None:
    page = guest.go("/avatars")
    page.get_by_role("button", name="Request", exact=True).click()
    expect(page.get_by_text("0 of 3 people")).to_be_visible()
    runs.run_data(gateway.services, "run-1")
    gateway.rows("update generation_tasks set status = 'cancelled', finished_at = '2026-11-20 09:41:07+0' returning 1")
    page.reload()
    expect(page.get_by_text("People and pictures are kept until 27 Nov 2026, 09:41:07 UTC.")).to_be_visible()
    deletion.run(gateway.services, "run-2")
    page.reload()
    expect(page.get_by_role("heading", name="Nobody is here")).to_be_visible()
