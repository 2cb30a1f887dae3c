"""SVG logos: drawn as they look, and nothing else that is in them."""

import io
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.reading.svg import SIDE, check, is_svg, rasterised
from imgpipe_orchestration.imaging.workshop import Workshop
from imgpipe_orchestration_tests.partners.wire import answering

XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def svg(inside: str, head: str = 'width="200" height="100"', before: str = "") -> bytes:
    return f"{before}<svg {XMLNS} {head}>{inside}</svg>".encode()


GREEN = '<rect width="200" height="100" fill="#0a0"/>'


def drawn(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(rasterised(data))) as image:
        return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize(
    ("head", "size"),
    [
        ('width="200" height="100"', (SIDE, SIDE // 2)),
        ('viewBox="0 0 100 200"', (SIDE // 2, SIDE)),
        ('width="2000000" height="2000000" viewBox="0 0 200 100"', (SIDE, SIDE)),
        ('width="1px" height="1px" viewBox="0 0 200 100"', (SIDE, SIDE)),
    ],
)
def test_a_logo_is_drawn_as_large_as_is_of_use(head: str, size: tuple[int, int]) -> None:
    pixels = drawn(svg(GREEN, head))
    assert (pixels.shape[1], pixels.shape[0]) == size
    assert tuple(pixels[size[1] * 3 // 8, size[0] * 3 // 8]) == (0, 170, 0, 255)


def test_what_is_not_painted_stays_transparent() -> None:
    pixels = drawn(svg('<rect width="100" height="100" fill="#a00"/>'))
    assert tuple(pixels[500, 500]) == (170, 0, 0, 255)
    assert pixels[500, 1500, 3] == 0


@pytest.mark.parametrize(
    "before",
    ["", "\ufeff", '<?xml version="1.0" encoding="UTF-8"?>\n', "<!-- by hand -->", "<!DOCTYPE svg>", "\n  "],
)
def test_an_svg_is_known_by_its_beginning(before: str) -> None:
    assert is_svg(svg(GREEN, before=before))
    assert not is_svg(b"<html><body>no</body></html>")
    assert not is_svg(b"")


def test_nothing_outside_is_asked_for_and_nothing_runs() -> None:
    with answering(b"x") as canary:
        inside = (
            f"<style>@import url({canary.url}/a.css); rect {{ background: url({canary.url}/b.png) }}</style>"
            f'<script href="{canary.url}/c.js">alert(1)</script>{GREEN}<image xlink:href="{canary.url}/d.png" '
            f'width="9" height="9"/><use href="{canary.url}/e.svg#a"/><image href="file:///etc/hostname" width="9" '
            f'height="9"/><foreignObject><img src="{canary.url}/f.png"/></foreignObject>'
        )
        head = 'width="200" height="100" onload="alert(1)"'
        pixels = drawn(svg(inside, head, f'<?xml-stylesheet href="{canary.url}/g.css"?>'))
        assert canary.requests == []
    assert tuple(pixels[500, 1000]) == (0, 170, 0, 255)


@pytest.mark.parametrize(
    "data",
    [
        svg("&a;", before='<!DOCTYPE svg [<!ENTITY a "ha">]>'),
        svg("&a;", before='<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>'),
        svg("", before='<!DOCTYPE svg [<!ENTITY % a SYSTEM "http://127.0.0.1/a.dtd">%a;]>'),
        svg(GREEN)[:-4],
        svg("<g>"),
        svg(GREEN, before='<?xml version="1.0" encoding="UTF-7"?>'),
        svg("ÿ").decode().encode("latin-1"),
        b"<!-- <svg> --><html/>",
        svg(GREEN, 'width="0" height="0"'),
    ],
    ids=["entity", "file", "parameter", "cut", "open", "encoding", "latin", "another root", "no size"],
)
def test_what_is_no_plain_svg_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(BadImage, match=r"save it as a plain SVG in UTF-8, or send PNG"):
        rasterised(data)


@pytest.mark.parametrize(
    "data",
    [svg(GREEN * 60_000), svg("<g>" * 300 + "</g>" * 300), svg(f"<!--{'a' * 2_000_000}-->")],
    ids=["many", "deep", "long"],
)
def test_what_is_more_than_a_logo_is_refused(data: bytes) -> None:
    with pytest.raises(TooLarge, match="limit"):
        check(data)


USES = "".join(f'<g id="a{n}">' + f'<use href="#a{n - 1}"/>' * 10 + "</g>" for n in range(1, 9))
BLURS = '<feGaussianBlur stdDeviation="1000"/>' * 50


@pytest.fixture
def shop() -> Iterator[Workshop]:
    with closing(Workshop(1, memory_bytes=512 * 1024**2, cpu_seconds=3, wall_seconds=30)) as opened:
        yield opened


@pytest.mark.parametrize(
    "inside",
    [
        f'<g id="a0">{GREEN}</g>{USES}',
        f'<filter id="f">{BLURS}</filter><g filter="url(#f)">{GREEN}</g>',
    ],
    ids=["uses of uses", "blurs"],
)
def test_what_takes_too_long_costs_only_itself(shop: Workshop, inside: str) -> None:
    outcome = shop.submit(rasterised, svg(inside)).exception(120)
    assert outcome is None or isinstance(outcome, BadImage | TooLarge)
    assert shop.submit(rasterised, svg(GREEN)).result(120).startswith(b"\x89PNG")
