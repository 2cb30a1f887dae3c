"""`/picture/{id}`: an element that is ready to be put into a page."""

import base64
import io
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from imgpipe_orchestration.media.intake import take_in
from imgpipe_orchestration_tests.media.conftest import Gateway, picture
from imgpipe_orchestration_tests.media.serving.test_routes import drawn_logo


class Elements(HTMLParser):
    """The tags of a page in their order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, Any]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))


def element(gateway: Gateway, path: str) -> list[tuple[str, dict[str, Any]]]:
    answer = gateway.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), answer.text
    return Elements(answer.text).found


def candidates(srcset: str) -> dict[int, str]:
    return {int(one.split(" ")[1][:-1]): one.split(" ")[0] for one in srcset.split(", ")}


def test_every_candidate_is_there_as_it_says(gateway: Gateway) -> None:
    gateway.finish(1, product_image=picture(1800, 1200, seed=3))
    (tag, _), *sources, (last, img) = element(gateway, "/picture/1?size=detail&sizes=50vw&alt=A+%22bowl%22+%26+more")
    assert (tag, last) == ("picture", "img")
    assert [name for name, _ in sources] == ["source"] * len(sources)
    assert sources[0][1]["type"] == "image/avif"
    assert img["alt"] == 'A "bowl" & more'
    assert (img["width"], img["height"], img["loading"], img["sizes"]) == ("1200", "800", "lazy", "50vw")
    assert max(candidates(img["srcset"])) > 1200, "a screen of high density finds more pixels"
    for _, attributes in [*sources, ("img", img)]:
        for width, url in candidates(attributes["srcset"]).items():
            answer = gateway.session.get(url, timeout=30)
            with Image.open(io.BytesIO(answer.content)) as image:
                assert image.width == width
                assert abs(image.width / image.height - 1.5) < 0.02
            assert "Vary" not in answer.headers
    data = base64.b64decode(img["style"].partition("base64,")[2].partition(")")[0])
    with Image.open(io.BytesIO(data)) as blurred:
        assert max(blurred.size) == 24
    gateway.rows("update media_ai_analysis set alt_text = 'A bowl'")
    assert element(gateway, "/picture/1")[-1][1]["alt"] == "A bowl"


def test_sizes_of_another_shape_are_left_out(gateway: Gateway) -> None:
    gateway.finish(1, product_image=picture(1800, 1200, seed=3))
    _, *_, (_, img) = element(gateway, "/picture/1?size=grid")
    sizes = {parse_qs(urlsplit(url).query)["size"][0] for url in candidates(img["srcset"]).values()}
    assert sizes == {"thumbnail", "grid"}
    assert gateway.get("/picture/1?size=huge").status_code == 400
    assert gateway.get("/picture/77").status_code == 404


def test_nothing_is_seen_through_a_transparent_picture(gateway: Gateway) -> None:
    gateway.finish(1, logo_image=drawn_logo())
    assert "style" in element(gateway, "/picture/1")[-1][1]
    img = element(gateway, "/picture/1?bg=removed")[-1][1]
    assert "style" not in img
    assert "format=png" in img["src"]


def test_an_image_that_is_not_ready_has_its_place_already(gateway: Gateway) -> None:
    gateway.upload(1, product_image=picture())
    assert take_in(gateway.services) == 1
    answer = gateway.get("/picture/1")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    ((_, _), (tag, img)) = Elements(answer.text).found
    assert tag == "img"
    assert gateway.session.get(img["src"], timeout=30).headers["cache-control"] == "no-store"
