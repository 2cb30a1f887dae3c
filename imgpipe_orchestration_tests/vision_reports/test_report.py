"""The report itself: escaped, self-contained, bounded."""

import base64
import hashlib
import io
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from imgpipe_orchestration.imaging.measuring import look
from imgpipe_orchestration.vision_reports import inspection, report
from imgpipe_orchestration.vision_reports.batch_work import measured_of
from imgpipe_orchestration.vision_reports.batches import Batch, BatchImage
from imgpipe_orchestration_tests.vision_reports.conftest import data_of

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}"
BATCH = UUID("e05accc8-25ab-479d-8761-74615318d96c")
BOX = {"left": 0.25, "top": 0.25, "right": 0.75, "bottom": 0.75}


@cache
def photo(seed: int = 0, size: tuple[int, int] = (800, 600)) -> bytes:
    """Noise that compresses about as badly as a photograph of gravel."""
    small = (size[0] // 4, size[1] // 4)
    noise = Image.frombytes("RGB", small, random.Random(seed).randbytes(small[0] * small[1] * 3))
    file = io.BytesIO()
    noise.resize(size).save(file, "JPEG", quality=85)
    return file.getvalue()


def finding(severity: str, title: str = "Rust", **other: Any) -> dict[str, Any]:
    return {
        "title": title,
        "explanation": "It is there.",
        "severity": severity,
        "confidence": 0.8,
        "evidence": BOX,
        **other,
    }


def accepted(summary: str, findings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a model's answer."""
    answer = {"summary": summary, "findings": list(findings)}
    return inspection.accepted(inspection.Inspection.model_validate(answer))


def image(position: int, *findings: dict[str, Any], text: str = "") -> BatchImage:
    measured = measured_of(look(photo(position % 3)))
    analysis = accepted(f"An image. {text}", findings)
    analysis |= {"model": "gpt-5-mini", "standin": False}
    name = f"hull_{position}.jpg{text}"
    return BatchImage(position, name, "", f"Port side {text}", "done", measured, analysis, None)


def batch(*images: BatchImage, text: str = "") -> Batch:
    missing = [{"name": f"gone.jpg{text}", "reason": f"HTTP 404 {text}"}]
    return Batch(1, BATCH, f"org{text}", f"Any defects? {text}", "gpt-5-mini", missing, [f"note {text}"], list(images))


def written(made: Batch, limit: int = 8_000_000) -> str:
    return report.write(made, picture=lambda one: photo(one.position), limit=limit).decode()


class Page(HTMLParser):
    """Elements with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


def test_everything_from_outside_is_escaped() -> None:
    html = written(batch(image(0, finding("high", EVIL, explanation=EVIL), text=EVIL), text=EVIL))
    page = Page(html)
    assert [attributes for tag, attributes in page.elements if tag == "script"] == [
        {"type": "application/json", "id": "report-data"}
    ]
    assert not [attributes for _, attributes in page.elements if any(name.startswith("on") for name in attributes)]
    assert "49" not in re.sub(r"data:image/webp[^\"]+", "", html).split("<body>")[1].split("alert(2)")[1][:40]
    assert EVIL in data_of(html)["images"][0]["findings"][0]["title"]


def test_it_needs_nothing_from_outside_and_forbids_itself_the_rest() -> None:
    html = written(batch(image(0, finding("critical"), finding("low"))))
    page = Page(html)
    sources = [a["src"] or "" for tag, a in page.elements if tag == "img"]
    assert len(sources) == 3
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert {tag for tag, _ in page.elements} & {"link", "iframe", "object", "embed", "form", "base"} == set()
    assert all((a.get("href") or "#").startswith("#") for _, a in page.elements)
    assert not [a for _, a in page.elements if "style" in a]
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    assert style is not None
    assert "url(" not in style[1]
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_worst_comes_first_and_crops_show_the_evidence() -> None:
    html = written(batch(image(0, finding("low")), image(1), image(2, finding("none"), finding("critical", "Crack"))))
    assert re.findall(r'<article class="image" id="image-(\d)">', html) == ["2", "0", "1"]
    assert "3 findings on 3 images" in html.replace("\n", " ")
    tiles = dict(re.findall(r'class="tile (\w+)[^"]*"><strong>(\d+)', html))
    assert tiles == {"critical": "1", "high": "0", "medium": "0", "low": "1", "none": "1"}
    crop = re.search(r'class="finding critical"><img src="data:image/webp;base64,([^"]+)"', html.replace("\n", ""))
    assert crop is not None
    shown = Image.open(io.BytesIO(base64.b64decode(crop[1])))
    assert max(shown.size) <= 320


@pytest.mark.parametrize("limit", [250_000, 1_000_000])
def test_its_size_is_bounded_and_pictures_of_the_least_serious_go_first(limit: int) -> None:
    images = [image(n, *([finding("high")] if n % 3 == 0 else [])) for n in range(14)]
    html = written(batch(*images), limit)
    assert len(html.encode()) <= limit
    articles = html.split("<article")[1:]
    assert len(articles) == 14
    pictured = ["data:image" in article for article in articles]
    assert pictured[0]
    assert pictured == sorted(pictured, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [200_000, 8_000_000])
def test_a_thousand_images_with_much_to_say_do_not_burst_it(limit: int) -> None:
    analysed = image(0, *[finding("low", "<" * 160, explanation="\u2028" * 1200)] * 5)
    images = [replace(analysed, position=n, name="<" * 200, description="&" * 2000) for n in range(999)]
    html = report.write(
        batch(*images, replace(image(0, finding("critical", "Crack")), position=999)),
        picture=lambda _: photo(),
        limit=limit,
    ).decode()
    assert len(html.encode()) <= limit
    assert "on 1000 images" in html.replace("\n", " ")
    data = data_of(html)
    assert data["severities"] == {"critical": 1, "high": 0, "medium": 0, "low": 4995, "none": 0}
    assert len(data["images"]) + data["images_left_out"] == 1000
    assert html.index("Crack") < html.index("Image by image")


def test_boxes_are_put_right_before_they_are_kept() -> None:
    line = finding("low", evidence={"left": 0.9, "top": 0.5, "right": 0.1, "bottom": 0.5})
    corner = finding("low", evidence={"left": 1, "top": 1, "right": 1, "bottom": 1})
    kept = accepted("s", [line, corner])["findings"]
    assert len(kept) == 2
    for box in (one["evidence"] for one in kept):
        assert 0 <= box["left"] < box["right"] <= 1
        assert 0 <= box["top"] < box["bottom"] <= 1
