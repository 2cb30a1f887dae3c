"""Charts, text and codes: what is smaller without loss is kept without loss, and photographs are not even tried."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from imgpipe_orchestration.imaging.encoding.picture import has_few_colours, is_drawn
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import Rendition, render
from imgpipe_orchestration_tests.imaging.corpus import encoded, photo


def chart(mode: str = "RGB") -> Image.Image:
    """Bars, a line and letters, in a few colours and the shades of their edges."""
    image = Image.new(mode, (900, 600), "#f5f5f5" if mode == "RGB" else (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(18)
    for number, colour in enumerate(("#e33", "#39f", "#2a2", "#fa0") * 2):
        draw.rectangle((60 + 100 * number, 500 - 50 * number, 120 + 100 * number, 540), fill=colour)
        draw.text((60 + 100 * number, 550), f"Q{number} {number * 37}", fill="#000", font=font)
    draw.line([(60 + 8 * x, 300 + 97 * x % 120) for x in range(100)], fill="#d06", width=3)
    return image


def page(ink: str) -> Image.Image:
    image = Image.new("RGB", (900, 600), "white")
    for line in range(24):
        text = " ".join(f"{line * 31 + word * 7919} words" for word in range(9))
        ImageDraw.Draw(image).text((10, 6 + 24 * line), text, fill=ink, font=ImageFont.load_default(16))
    return image


def webp_of(rendition: Rendition, size: str) -> tuple[Image.Image, int]:
    """The picture, and the quality it has."""
    (found,) = [v for v in rendition.variants if (v.size, v.format) == (size, "webp")]
    return Image.open(io.BytesIO(found.data)), found.quality


@pytest.mark.parametrize("drawing", [
    pytest.param(chart(), id="chart"),
    pytest.param(page("black"), id="text"),
    pytest.param(page("#c00000"), id="red text", marks=pytest.mark.slow),
])  # fmt: skip
def test_a_drawing_at_its_own_pixels_is_kept_without_loss_in_fewer_bytes(drawing: Image.Image) -> None:
    rendition = render(encoded(drawing, "PNG"), MEDIA)
    shown, quality = webp_of(rendition, "zoom")
    assert quality == 0
    assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(drawing))
    sizes = {variant.format: len(variant.data) for variant in rendition.variants if variant.size == "zoom"}
    assert sizes["webp"] < sizes["jpeg"] / 4
    assert any(note.startswith("zoom: avif dropped") for note in rendition.notes)


def test_a_drawing_with_transparency_keeps_every_pixel_that_is_seen() -> None:
    drawing = chart("RGBA")
    shown, quality = webp_of(render(encoded(drawing, "PNG"), MEDIA), "detail")
    made, original = np.asarray(shown), np.asarray(drawing)
    assert quality == 0
    assert np.array_equal(made[..., 3], original[..., 3])
    seen = original[..., 3] > 0
    assert np.array_equal(made[seen], original[seen])


def test_what_arrives_at_once_stays_as_it_is() -> None:
    """A plain ground would be fifty bytes as WebP, and lose its AVIF of four hundred to that."""
    rendition = render(encoded(Image.new("RGB", (800, 600), "red"), "PNG"), MEDIA)
    detail = {variant.format: variant.quality for variant in rendition.variants if variant.size == "detail"}
    assert set(detail) == {"avif", "webp", "jpeg"}
    assert detail["webp"] > 0


def test_a_drawing_in_many_colours_is_told_from_a_photograph_by_its_flat_areas() -> None:
    drawing = Image.new("RGB", (900, 600), "#2a6fb0")
    drawing.paste(Image.linear_gradient("L").resize((300, 600)), (600, 0))
    drawing.paste(photo("retina").resize((300, 200)), (40, 40))
    assert not has_few_colours(drawing)
    assert is_drawn(drawing)
    assert not is_drawn(photo("astronaut"))
