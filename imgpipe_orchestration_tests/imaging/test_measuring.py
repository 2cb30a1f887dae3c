"""What is measured of an original: digest, hashes, sharpness, exposure, colours, placeholder."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from imgpipe_orchestration.imaging.measuring import look, placeholder
from imgpipe_orchestration_tests.imaging.corpus import encoded, exif_of, measure, photo, picture, pixels


def _differing(one: int, other: int) -> int:
    """Bits in which two signed numbers of 64 bits differ."""
    return ((one ^ other) & (2**64 - 1)).bit_count()


def test_identical_pixels_have_one_digest_in_different_files() -> None:
    image = picture(120, 90)
    digests = {
        measure(encoded(image, "PNG"))["pixel_sha256"],
        measure(encoded(image, "BMP"))["pixel_sha256"],
        measure(encoded(image, "WEBP", lossless=True))["pixel_sha256"],
        measure(encoded(image.convert("RGBA"), "PNG"))["pixel_sha256"],
    }
    assert len(digests) == 1
    assert measure(encoded(image.rotate(180), "PNG"))["pixel_sha256"] not in digests


def test_pictures_that_look_alike_have_near_hashes_and_others_far_ones() -> None:
    original = photo("astronaut")
    base = measure(encoded(original, "PNG"))["phash"]
    smaller = measure(encoded(original.resize((200, 200)), "JPEG", quality=50))["phash"]
    other = measure(encoded(photo("coffee"), "PNG"))["phash"]
    assert _differing(base, smaller) <= 6
    assert _differing(base, other) >= 16


def test_a_blurred_picture_is_less_sharp() -> None:
    original = photo("astronaut")
    blurred = original.filter(ImageFilter.GaussianBlur(4))
    sharp, soft = (measure(encoded(image, "PNG"))["measured"]["sharpness"] for image in (original, blurred))
    assert sharp > 0.5
    assert soft < sharp / 3


def test_exposure_tells_dark_bright_and_flat_apart() -> None:
    black, white, half = Image.new("L", (64, 64), 0), Image.new("L", (64, 64), 255), Image.new("L", (64, 64), 0)
    half.paste(255, (0, 0, 64, 32))
    figures = [measure(encoded(image, "PNG"))["measured"]["exposure"] for image in (black, white, half)]
    assert [f["mean"] for f in figures] == pytest.approx([0, 1, 0.5], abs=0.01)
    assert [f["contrast"] for f in figures] == pytest.approx([0, 0, 1], abs=0.02)
    assert [f["clipped_shadows"] for f in figures] == pytest.approx([1, 0, 0.5], abs=0.01)


def test_the_dominant_colours_are_those_painted() -> None:
    image = Image.new("RGB", (100, 100), "#ff5733")
    image.paste(Image.new("RGB", (100, 30), "#33a1ff"), (0, 0))
    colours = measure(encoded(image, "PNG"))["dominant_colors"]
    assert [(c["hex"], pytest.approx(c["share"], abs=0.03)) for c in colours] == [("#ff5733", 0.7), ("#33a1ff", 0.3)]


def test_transparent_pixels_have_no_colour() -> None:
    image = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    image.paste((0, 120, 60, 255), (40, 40, 60, 60))
    found = measure(encoded(image, "PNG"))
    assert [colour["hex"] for colour in found["dominant_colors"]] == ["#00783c"]


def _shown(url: str) -> Image.Image:
    kind, _, data = url.partition(",")
    assert kind == "data:image/webp;base64"
    assert len(url) < 800
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")


@pytest.mark.parametrize("size", [(90, 60), (40, 100), (64, 64)])
def test_the_placeholder_looks_like_the_picture_it_stands_for(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, (240, 200, 40))
    image.paste((30, 60, 200), (0, 0, size[0] // 2, size[1]))
    shown = _shown(measure(encoded(image, "PNG"))["placeholder"])
    assert max(shown.size) == 24
    assert shown.width / shown.height == pytest.approx(size[0] / size[1], rel=0.1)
    for x, wanted in ((1, (30, 60, 200)), (shown.width - 2, (240, 200, 40))):
        assert np.abs(np.array(shown.getpixel((x, shown.height // 2))[:3]) - wanted).max() < 30


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (100, 1)])
def test_the_placeholder_of_a_tiny_picture_is_its_colour(size: tuple[int, int]) -> None:
    shown = _shown(placeholder(Image.new("RGB", size, (220, 30, 30))))
    assert np.abs(np.asarray(shown)[..., :3].astype(int) - (220, 30, 30)).max() < 15


def test_the_placeholder_of_a_transparent_picture_is_transparent_as_well() -> None:
    assert np.asarray(_shown(placeholder(Image.new("RGBA", (50, 50)))))[..., 3].max() == 0


def test_measurements_are_of_the_upright_picture() -> None:
    image = picture(120, 90)
    turned = measure(encoded(image, "PNG", exif=exif_of({0x0112: 6})))
    upright = measure(encoded(image.transpose(Image.Transpose.ROTATE_270), "PNG"))
    assert (turned["measured"]["width"], turned["measured"]["height"]) == (90, 120)
    assert turned["pixel_sha256"] == upright["pixel_sha256"]
    assert turned["phash"] == upright["phash"]


def test_white_logos_are_seen_and_are_not_all_alike() -> None:
    """Laid over white they would be one and the same blank page."""
    hashes = []
    for corners in ([(300, 50), (550, 550), (50, 550)], [(50, 50), (550, 50), (300, 550)]):
        image = Image.new("RGBA", (600, 600), (255, 255, 255, 0))
        ImageDraw.Draw(image).polygon(corners, fill=(255, 255, 255, 255))
        seen = look(encoded(image, "PNG"))
        assert np.ptp(pixels(seen.preview)) > 200
        assert seen.values["measured"]["sharpness"] > 0.2
        hashes.append(seen.values["phash"])
    assert _differing(*hashes) > 16
