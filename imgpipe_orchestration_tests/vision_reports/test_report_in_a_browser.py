"""The report before a reader: without JavaScript, light and dark, on a phone, on paper, under the strictest rules."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from imgpipe_orchestration.devstack import photos
from imgpipe_orchestration.vision_reports import report, views
from imgpipe_orchestration.vision_reports.batches import Batch, BatchImage
from imgpipe_orchestration_tests.gateway.browser import chromium, visitor
from imgpipe_orchestration_tests.partners.wire import reply, serving
from imgpipe_orchestration_tests.vision_reports.test_report import BATCH, accepted, finding

_SHOWN = ("brick", "coffee", "gravel", "chelsea")


def sample() -> bytes:
    """A report on photographs, of every severity, with an image that was missing and one without findings."""
    texts = "A stain spreads from the joint; the coating has come off around it. Have it looked at before the winter."
    boxes = [
        {"left": 0.1, "top": 0.15, "right": 0.4, "bottom": 0.5},
        {"left": 0.55, "top": 0.5, "right": 0.95, "bottom": 0.85},
    ]
    severities = [("critical", "low"), ("high", "medium"), ("none",), ()]
    seen = [views.view(photos.jpeg(name)) for name in _SHOWN]
    images = []
    for number, (name, view, found) in enumerate(zip(_SHOWN, seen, severities, strict=True)):
        findings = [
            finding(severity, "Corrosion at the joint", explanation=texts, evidence=boxes[n], confidence=0.9 - n / 4)
            for n, severity in enumerate(found)
        ]
        analysis = accepted(f"A photograph: {name}.", findings)
        analysis |= {"model": "gpt-6-luna", "standin": False}
        images.append(
            BatchImage(
                number, f"{name}.jpg", "", "Port side, near the waterline", "done", view.measured, analysis, None
            )
        )
    missing = [{"name": "oceanix_07.jpg", "reason": "the link has expired (its signature ended 2026-11-01)"}]
    batch = Batch(1, BATCH, "LexCorp", "Analyze these images for defects", "gpt-6-luna", missing, ["A note."], images)
    return report.write(batch, picture=lambda image: seen[image.position].jpeg, limit=8_000_000)


def of_one_word() -> bytes:
    """A report in which every text is one word that is longer than a line."""
    word = "W" * 160
    view = views.view(photos.jpeg("coffee"))
    analysis = accepted(word, [finding("critical", word, explanation=word)]) | {"model": "gpt-6-luna", "standin": False}
    image = BatchImage(0, word, "", word, "done", view.measured, analysis, None)
    batch = Batch(1, BATCH, word, word, "gpt-6-luna", [{"name": word, "reason": word}], [word], [image])
    return report.write(batch, picture=lambda _: view.jpeg, limit=8_000_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """Serves the report as it is at `/`, at `/strict` under rules that allow nothing at all, at `/word` another one."""
    html = sample()
    pages = {"/": html, "/strict": html, "/word": of_one_word()}

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        if handler.path not in pages:
            return reply(handler, status=404)
        rules = {"Content-Security-Policy": "default-src 'none'; sandbox"} if handler.path == "/strict" else {}
        return reply(handler, pages[handler.path], Content_Type="text/html; charset=utf-8", **rules)

    with serving(answer) as server:
        yield server.url


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("report-light", {"color_scheme": "light"}),
        ("report-dark", {"color_scheme": "dark"}),
        ("report-phone", {"viewport": {"width": 390, "height": 800}}),
    ],
)
def test_it_is_whole_without_javascript_and_asks_nobody(
    site: str, browser: Browser, name: str, options: dict[str, Any]
) -> None:
    with visitor(browser, site, java_script_enabled=False, **options) as reader:
        reader.allowed = ["favicon"]  # which the browser asks for, not the page
        page = reader.go("/")
        assert page.get_by_role("heading", level=1).inner_text() == "5 findings on 4 images"
        assert page.get_by_role("article").count() == 4
        assert page.get_by_role("link", name="1 image could not be had.").is_visible()
        assert page.locator("img").count() == 4 + 5
        assert all(box["width"] > 0 for box in _boxes(page, "article img"))
        width = options.get("viewport", {}).get("width", 1280)
        assert all(box["x"] + box["width"] <= width for box in _boxes(page, "article, .tile, .frame"))
        reader.picture(name)


def test_a_reader_with_any_need_can_use_it(site: str, browser: Browser) -> None:
    for scheme in ("light", "dark"):
        with visitor(browser, site, color_scheme=scheme) as reader:
            reader.allowed = ["favicon"]
            reader.go("/")
            assert reader.axe() == []


def _boxes(page: Page, selector: str) -> list[Any]:
    return [one.bounding_box() for one in page.locator(selector).all()]
