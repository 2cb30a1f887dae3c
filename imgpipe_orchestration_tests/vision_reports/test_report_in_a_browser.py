"""The report before a reader: without JavaScript, light and dark, on a phone."""

from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from imgpipe_orchestration_tests.gateway.browser import chromium, visitor
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.test_report import batch, finding, image, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serves a report of every severity, with an image that was missing and one without findings."""
    found = [("critical", "low"), ("high", "medium"), ("none",), ()]
    said = partial(finding, explanation="A stain spreads from the joint; the coating has come off around it. " * 2)
    html = written(batch(*(image(number, *map(said, severities)) for number, severities in enumerate(found))))

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        reply(handler, html.encode(), 200 if handler.path == "/" else 404, Content_Type="text/html; charset=utf-8")

    with serving(answer) as server:
        yield server.url


@pytest.mark.parametrize(
    "options", [{"color_scheme": "light"}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 800}}]
)
def test_it_is_whole_without_javascript_and_asks_nobody(site: str, browser: Browser, options: dict[str, Any]) -> None:
    with visitor(browser, site, java_script_enabled=False, **options) as reader:
        reader.allowed = ["favicon"]  # which the browser asks for, not the page
        page = reader.go("/")
        assert page.get_by_role("heading", level=1).inner_text() == "5 findings on 4 images"
        assert page.get_by_role("article").count() == 4
        assert page.get_by_role("link", name="1 image could not be used.").is_visible()
        assert page.locator("img").count() == 4 + 5
        assert all(box["width"] > 0 for box in _boxes(page, "article img"))
        width = options.get("viewport", {}).get("width", 1280)
        assert all(box["x"] + box["width"] <= width for box in _boxes(page, "article, .tile, .frame"))


def test_a_reader_with_any_need_can_use_it(site: str, browser: Browser) -> None:
    for scheme in ("light", "dark"):
        with visitor(browser, site, color_scheme=scheme) as reader:
            reader.allowed = ["favicon"]
            reader.go("/")
            assert reader.axe() == []


def _boxes(page: Page, selector: str) -> list[Any]:
    return [one.bounding_box() for one in page.locator(selector).all()]
