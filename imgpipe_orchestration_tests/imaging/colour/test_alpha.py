"""A transparent picture is laid over a backdrop on which it can be seen."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgpipe_orchestration.imaging.colour import DARK, GREY, WHITE, Backdrop, backdrop_for, flattened
from imgpipe_orchestration.imaging.encoding.picture import Picture
from imgpipe_orchestration_tests.imaging.corpus import encoded


def _logo(*colours: Backdrop) -> Image.Image:
    """Equal bars on transparency, whose pixels have a colour that nobody sees."""
    image = Image.new("RGBA", (300, 200), (90, 90, 90, 0))
    draw = ImageDraw.Draw(image)
    for number, colour in enumerate(colours):
        draw.rectangle((60, 40 + 20 * number, 240, 54 + 20 * number), fill=(*colour, 255))
    return image


@pytest.mark.parametrize(
    ("colours", "usual", "backdrop"),
    [
        ([(0, 0, 0)], WHITE, WHITE),
        ([(255, 255, 255)], WHITE, DARK),
        ([(250, 250, 250), (0, 60, 160)], WHITE, WHITE),
        ([(250, 250, 250), (240, 240, 200), (0, 60, 160)], WHITE, DARK),
        ([(120, 130, 125)], GREY, WHITE),
        ([(255, 255, 255)], GREY, GREY),
        ([], WHITE, WHITE),
        ([], GREY, GREY),
    ],
)
def test_the_backdrop_shows_at_least_half_of_what_is_visible(
    colours: list[Backdrop], usual: Backdrop, backdrop: Backdrop
) -> None:
    image = _logo(*colours)
    assert backdrop_for(image, usual) == backdrop
    large = image.resize((3000, 2000), Image.Resampling.NEAREST)
    assert backdrop_for(large, usual) == backdrop


def test_no_picture_is_hidden_by_its_backdrop() -> None:
    for level in range(0, 256, 5):
        seen = np.asarray(flattened(_logo((level, level, level)))).astype(int)
        assert np.ptp(seen) >= 48, level


def test_a_file_of_a_grey_logo_is_not_scored_on_grey() -> None:
    logo = _logo((128, 128, 128), (130, 126, 128))
    picture = Picture(logo, target=75.0)
    assert picture.score(encoded(logo, "PNG")) > 99.9
    assert picture.score(encoded(Image.new("RGBA", logo.size), "PNG")) < 0
