"""Whatever colour space a picture is in, it comes out in sRGB."""

import zlib

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging.corpus import (
    difference,
    encoded,
    flat_png,
    picture,
    png_chunk,
    prepared_pixels,
)
from imgpipe_orchestration_tests.imaging.profiles import cmyk_to, display_p3, grey_gamma


def test_a_png_s_colour_numbers_count_more_than_its_profile() -> None:
    profile = (b"iCCP", b"x\0\0" + zlib.compress(display_p3()))
    row = bytes((200, 100, 50)) * 32
    srgb = prepared_pixels(flat_png(8, 2, row, (b"cICP", bytes([1, 13, 0, 1])), profile))
    assert (srgb == (200, 100, 50)).all()
    unknown = prepared_pixels(flat_png(8, 2, row, (b"cICP", bytes([2, 2, 0, 1])), profile))
    assert (unknown == prepared_pixels(flat_png(8, 2, row, profile))).all()
    assert np.abs(unknown[0, 0].astype(int) - (200, 100, 50)).max() > 10


@pytest.mark.parametrize("profile", [grey_gamma(1.0), b"no profile at all" * 20], ids=["grey", "broken"])
def test_a_profile_that_cannot_be_meant_counts_as_srgb(profile: bytes) -> None:
    prepared = prepare(encoded(picture(160, 120), "PNG", icc_profile=profile), MEDIA)
    assert "colour profile ignored" in prepared.notes[0]
    assert difference(np.asarray(prepared.image), np.asarray(picture(160, 120))) == 0


def test_a_profile_s_list_of_steps_is_left_out_for_its_curves_and_primaries() -> None:
    plain, stepped = (encoded(picture(64, 48), "PNG", icc_profile=display_p3(steps=steps)) for steps in (0, 3))
    assert (prepared_pixels(stepped) == prepared_pixels(plain)).all()


def _p3_as_srgb(colour: tuple[int, int, int], gamma: float = 0) -> np.ndarray:
    """Display P3 (with a plain gamma in its curve's place) to sRGB by way of XYZ, with the matrices of CSS Color 4."""
    to_xyz = np.array(
        [[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0, 0.0451134, 1.0439444]]
    )
    from_xyz = np.array(
        [[3.2409699, -1.5373832, -0.4986108], [-0.9692436, 1.8759675, 0.0415551], [0.0556301, -0.2039770, 1.0569715]]
    )
    value = np.array(colour) / 255
    linear = value**gamma if gamma else np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    srgb = np.clip(from_xyz @ to_xyz @ linear, 0, 1)
    return np.where(srgb <= 0.0031308, srgb * 12.92, 1.055 * srgb ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("colour", [(200, 100, 50), (90, 160, 90), (30, 60, 150), (128, 128, 128)])
def test_a_wide_gamut_is_converted_whether_a_profile_or_a_number_names_it(colour: tuple[int, int, int]) -> None:
    image = Image.new("RGB", (32, 32), colour)
    png = encoded(image, "PNG")
    numbered = png[:33] + png_chunk(b"cICP", bytes([12, 13, 0, 1])) + png[33:]
    avif = encoded(image, "AVIF", quality=100, subsampling="4:4:4")
    at = avif.index(b"colrnclx") + 8
    numbered_avif = avif[:at] + b"\0\x0c" + avif[at + 2 :]
    heic = encoded(image, "HEIF", quality=100, color_primaries=12, save_nclx_profile=True)
    for file in (numbered, numbered_avif, heic):
        assert np.abs(prepared_pixels(file).mean(axis=(0, 1)) - _p3_as_srgb(colour)).max() < 3.5
    profiled = prepared_pixels(encoded(image, "PNG", icc_profile=display_p3()))
    assert np.abs(profiled.mean(axis=(0, 1)) - _p3_as_srgb(colour, gamma=2.2)).max() < 3


def test_an_hdr_picture_is_refused_rather_than_shown_grey() -> None:
    png = encoded(picture(64, 48), "PNG")
    with pytest.raises(BadImage, match="standard dynamic range"):
        sniff(png[:33] + png_chunk(b"cICP", bytes([9, 16, 0, 1])) + png[33:])


def test_a_grey_profile_is_applied_to_grey() -> None:
    image = Image.new("L", (32, 32), 100)
    result = prepared_pixels(encoded(image, "PNG", icc_profile=grey_gamma(1.0)))
    linear = 100 / 255
    expected = (1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert abs(float(result.mean()) - expected) < 3


def test_cmyk_is_read_through_its_profile() -> None:
    profile = cmyk_to(lambda c, m, y, k: (100 * (1 - k) * (1 - 0.4 * c), -30 * c + 70 * m, -45 * c + 90 * y))
    image = Image.new("CMYK", (32, 32), (255, 0, 0, 0))
    with_profile = prepared_pixels(encoded(image, "TIFF", icc_profile=profile)).mean(axis=(0, 1))
    # Lab 60, -30, -45 in sRGB, by the CIE's formulae.
    assert np.abs(with_profile - (0, 161, 226)).max() < 12
    without = prepare(encoded(image, "TIFF"), MEDIA)
    assert "without a colour profile" in without.notes[0]
