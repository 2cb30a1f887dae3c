"""Logos are shown whole in every shape, on more of their own background."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.imaging.recipe import MEDIA, MEDIA_SIZES
from imgpipe_orchestration.imaging.render import Rendition, render
from imgpipe_orchestration.imaging.subject.focus import FocusHints
from imgpipe_orchestration.imaging.subject.mark import find_mark
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo, pixels

CROPS = replace(MEDIA, sizes=tuple(size for size in MEDIA_SIZES if size.fit == "crop"), adaptive=False)
LEFT, RIGHT = (220, 20, 20), (20, 20, 220)
"""Colours of a banner's ends: a crop shows all of it where it shows both."""


def _banner(background: tuple[int, ...], size: tuple[int, int] = (1400, 200)) -> Image.Image:
    """A bar from end to end, red on the left and blue on the right; upright where the picture is."""
    image = Image.new("RGBA" if len(background) == 4 else "RGB", (1400, 200), background)
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 60, 699, 139), fill=LEFT)
    draw.rectangle((700, 60, 1359, 139), fill=RIGHT)
    return image if size == image.size else image.rotate(90, expand=True)


def _shares(rendition: Rendition, background: str) -> dict[str, tuple[float, float]]:
    """What share of each crop is red and blue, by the crop's name; in its lossless or best supported file."""
    found = {}
    for one in rendition.variants:
        if one.background == background and one.format in {"png", "jpeg", "webp"}:
            rgb = pixels(one.data)
            rgb, seen = rgb[..., :3], rgb[..., 3:].min(axis=2, initial=255) > 128
            near = [np.abs(rgb - colour).max(axis=2) < 60 for colour in (LEFT, RIGHT)]
            found[one.size] = (float((near[0] & seen).mean()), float((near[1] & seen).mean()))
    return found


@pytest.mark.parametrize(
    ("background", "size", "kind"),
    [
        ((255, 255, 255), (1400, 200), "JPEG"),
        ((30, 60, 50), (200, 1400), "PNG"),
        ((0, 0, 0, 0), (1400, 200), "PNG"),
        ((0, 0, 0, 0), (200, 1400), "PNG"),
    ],
)
def test_a_crop_that_would_cut_a_logo_shows_all_of_it(
    background: tuple[int, ...], size: tuple[int, int], kind: str
) -> None:
    rendition = render(encoded(_banner(background, size), kind), CROPS, is_logo=True)
    made = {one.size: one for one in rendition.variants if one.background == "original"}
    for name, (red, blue) in _shares(rendition, "original").items():
        assert abs(red - blue) < 0.1 * red, name
        assert red > 0.005, name
        corner = pixels(made[name].data)[0, 0]
        assert np.abs(corner[:3] - np.array(background[:3])).max() <= 3 or not corner[-1]
    assert {(made[name].width, made[name].height) for name in ("thumbnail", "grid")} == {(300, 300), (500, 500)}
    cut_out = _shares(rendition, "removed")
    assert cut_out.keys() == _shares(rendition, "original").keys()
    for name, shares in _shares(rendition, "original").items():
        assert cut_out[name] == pytest.approx(shares, rel=0.2), name


def test_without_being_a_logo_it_is_cropped_as_photographs_are() -> None:
    rendition = render(encoded(_banner((255, 255, 255)), "PNG"), CROPS)
    red, blue = _shares(rendition, "original")["thumbnail"]
    assert red + blue > 0.35
    assert {(one.width, one.height) for one in rendition.variants if one.size == "grid"} == {(200, 200)}


def test_a_logo_that_a_crop_holds_is_not_made_smaller() -> None:
    image = Image.new("RGB", (1200, 400), "white")
    ImageDraw.Draw(image).rectangle((900, 50, 1199, 349), fill=LEFT)
    rendition = render(encoded(image, "PNG"), CROPS, is_logo=True)
    assert _shares(rendition, "original")["thumbnail"][0] == pytest.approx(300 * 300 / 400**2, rel=0.03)


def test_a_part_of_a_logo_chosen_by_hand_is_what_crops_show() -> None:
    hints = FocusHints(manual=Box(0.02, 0.2, 0.12, 0.8))
    rendition = render(encoded(_banner((255, 255, 255)), "PNG"), CROPS, hints, is_logo=True)
    assert rendition.focus.reason == "manual"
    red, blue = _shares(rendition, "original")["thumbnail"]
    assert red > 0.25
    assert blue == 0


def test_a_logo_cut_out_of_a_gradient_is_whole_where_the_one_on_it_is_not() -> None:
    ramp = np.linspace(180, 255, 1400)[None, :, None]
    page = Image.fromarray(np.broadcast_to(ramp, (200, 1400, 3)).astype(np.uint8))
    mark = _banner((0, 0, 0, 0))
    page.paste(mark, (0, 0), mark)
    rendition = render(encoded(page, "PNG"), CROPS, is_logo=True)
    red, blue = _shares(rendition, "removed")["thumbnail"]
    assert red == pytest.approx(blue, rel=0.1)
    assert any(note.startswith("crops may cut the logo") for note in rendition.notes)


def test_a_background_is_plain_or_none() -> None:
    plain = Image.new("RGB", (300, 200), (240, 240, 240))
    assert find_mark(plain) is None
    ImageDraw.Draw(plain).rectangle((100, 50, 199, 149), fill=LEFT)
    mark = find_mark(plain)
    assert mark is not None
    assert mark.background == (240, 240, 240)
    assert mark.box == Box(100 / 300, 50 / 200, 200 / 300, 150 / 200)
    halved = plain.copy()
    ImageDraw.Draw(halved).rectangle((150, 0, 299, 199), fill=RIGHT)
    faint = Image.linear_gradient("L").point(lambda level: 240 + level // 24).convert("RGB")
    faint.paste(LEFT, (100, 100, 150, 150))
    for other in (halved, faint, photo("coffee"), Image.linear_gradient("L").convert("RGB")):
        assert find_mark(other) is None


def test_a_logo_that_was_cut_out_closely_is_whole() -> None:
    word = Image.new("RGB", (900, 150), "white")
    draw = ImageDraw.Draw(word)
    for left in range(0, 900, 100):  # letters of full height, the first of them along the left edge
        draw.rectangle((left, 0, left + 19, 149), fill=LEFT if left < 450 else RIGHT)
    rendition = render(encoded(word, "JPEG"), CROPS, is_logo=True)
    red, blue = _shares(rendition, "original")["grid"]
    assert red > 0.01
    assert blue == pytest.approx(4 / 5 * red, rel=0.15)
