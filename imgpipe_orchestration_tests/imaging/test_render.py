"""A whole rendition: its sizes, formats and notes."""

from __future__ import annotations

import hashlib

from PIL import Image, ImageDraw

from imgpipe_orchestration.imaging.recipe import MEDIA, Recipe, Size
from imgpipe_orchestration.imaging.render import render
from imgpipe_orchestration_tests.imaging.corpus import difference, encoded, picture, pixels

ONE_SIZE = Recipe(sizes=(Size("detail", 1200, 1200, "within"),), formats=("webp", "jpeg"))


def test_every_size_comes_in_every_format_and_decodes_to_what_it_says() -> None:
    rendition = render(encoded(picture(900, 640), "JPEG", quality=92), MEDIA)
    made = {(v.size, v.format) for v in rendition.variants}
    dropped = {tuple(note.split(" dropped")[0].split(": ")) for note in rendition.notes if "dropped" in note}
    assert made | dropped == {(size.name, kind) for size in MEDIA.sizes for kind in ("avif", "webp", "jpeg")}
    for variant in rendition.variants:
        assert pixels(variant.data).shape == (variant.height, variant.width, 3)
        assert variant.sha256 == hashlib.sha256(variant.data).hexdigest()


def test_a_picture_keeps_its_colours_through_every_format() -> None:
    original = picture(600, 480)
    rendition = render(encoded(original, "PNG"), MEDIA)
    expected = pixels(encoded(original.resize((480, 384)), "PNG"))
    for variant in (v for v in rendition.variants if v.size == "small"):
        assert difference(pixels(variant.data), expected) < 6, variant.format


def test_nothing_is_enlarged_and_the_manifest_says_so() -> None:
    rendition = render(encoded(picture(200, 160), "PNG"), MEDIA)
    sizes = {v.size: (v.width, v.height) for v in rendition.variants}
    assert sizes == {
        "thumbnail": (160, 160),
        "small": (200, 160),
        "grid": (160, 160),
        "detail": (200, 160),
        "header": (200, 67),
        "zoom": (200, 160),
    }
    assert len([note for note in rendition.notes if "as nothing is enlarged" in note]) == 6


def test_the_same_input_and_recipe_give_the_same_bytes() -> None:
    data = encoded(picture(700, 500), "PNG")
    assert render(data, MEDIA) == render(data, MEDIA)


def test_transparency_makes_png_of_what_would_be_jpeg() -> None:
    image = picture(320, 240).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 100, 100))
    rendition = render(encoded(image, "PNG"), MEDIA)
    assert "png" in {v.format for v in rendition.variants} <= {"avif", "webp", "png"}


def test_an_opaque_alpha_channel_is_dropped() -> None:
    rendition = render(encoded(picture(320, 240).convert("RGBA"), "PNG"), MEDIA)
    assert "jpeg" in {v.format for v in rendition.variants}
    assert "png" not in {v.format for v in rendition.variants}


def test_an_opaque_page_with_a_transparent_patch_has_a_background_still() -> None:
    page = Image.new("RGBA", (600, 400), (255, 255, 255, 255))
    draw = ImageDraw.Draw(page)
    draw.ellipse((200, 100, 400, 300), fill=(200, 30, 30, 255))
    draw.rectangle((290, 190, 310, 210), fill=(0, 0, 0, 0))
    page.putpixel((0, 0), (255, 255, 255, 0))
    made = render(encoded(page, "PNG"), ONE_SIZE, is_logo=True)
    assert any(note.startswith("background removed: 8") for note in made.notes), made.notes
    (removed,) = [one for one in made.variants if one.background == "removed" and one.format == "png"]
    alpha = pixels(removed.data)[..., 3]
    assert (alpha[5, 5], alpha[150, 300], alpha[200, 300]) == (0, 255, 0)


def test_an_icon_with_round_corners_has_none() -> None:
    icon = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    ImageDraw.Draw(icon).rounded_rectangle((0, 0, 299, 299), 40, fill=(20, 90, 200, 255))
    made = render(encoded(icon, "PNG"), ONE_SIZE, is_logo=True)
    assert "background removed: the original has none" in made.notes
