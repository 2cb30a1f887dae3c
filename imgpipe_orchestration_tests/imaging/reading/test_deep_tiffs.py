"""TIFFs of more than 8 bits a channel, and others that Pillow does not read or shows wrong."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging.corpus import difference, picture, prepared_pixels, tiff_of
from imgpipe_orchestration_tests.imaging.profiles import P3, display_p3

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, INKS, LAB = 0, 1, 2, 5, 8
WIDTH, HEIGHT = 64, 48


def _colours() -> np.ndarray:
    return np.asarray(picture(WIDTH, HEIGHT))


def _grey() -> np.ndarray:
    return np.asarray(picture(WIDTH, HEIGHT).convert("L"))[..., None]


def _alpha() -> np.ndarray:
    alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
    alpha[:, WIDTH // 2 :] = 128
    return alpha


def _inks() -> np.ndarray:
    return np.asarray(picture(WIDTH, HEIGHT).convert("CMYK"))


def _wide(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.uint16) * 257


def _share(levels: np.ndarray, kind: type[np.floating] = np.float32) -> np.ndarray:
    return (levels / 255).astype(kind)


def _lab(light: float, chroma: float) -> np.ndarray:
    """The picture as CIE Lab under D50, by its definition; so much for L of 100, and for each step of a and b."""
    level = _colours() / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169],
                       [0.0139322, 0.0971045, 0.7141733]])  # fmt: skip
    xyz = linear @ to_xyz.T / (0.96422, 1, 0.82521)
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(root, -1, 0)
    scaled = np.stack([(116 * y - 16) / 100 * light, 500 * (x - y) * chroma, 200 * (y - z) * chroma], axis=-1)
    return np.round(scaled).astype(np.int32)


KINDS: dict[str, Callable[[], bytes]] = {
    "floats": lambda: tiff_of(_share(_colours()), RGB),
    "floats, big-endian and packed": lambda: tiff_of(_share(_colours()), RGB, order=">", packed=True),
    "floats in a tile": lambda: tiff_of(_share(_colours()), RGB, tiled=True, packed=True),
    "floats of 16 bits": lambda: tiff_of(_share(_colours(), np.float16), RGB),
    "floats in planes": lambda: tiff_of(_share(_colours()), RGB, planes=True),
    "integers of 32 bits": lambda: tiff_of(_colours().astype(np.uint32) * 257, RGB),
    "16 bits in planes": lambda: tiff_of(_wide(_colours()), RGB, planes=True),
    "16 bits in packed planes, big-endian": lambda: tiff_of(
        _wide(_colours()), RGB, planes=True, packed=True, order=">"
    ),
    "16 bits of ink in planes": lambda: tiff_of(_wide(_inks()), INKS, planes=True),
    "big-endian BigTIFF": lambda: tiff_of(_colours(), RGB, order=">", big=True),
    "big-endian BigTIFF of 16 bits": lambda: tiff_of(_wide(_colours()), RGB, order=">", big=True, packed=True),
    "Lab of 16 bits": lambda: tiff_of(_lab(65_535, 256).astype(np.uint16), LAB),
    "a channel that means nothing": lambda: tiff_of(np.dstack([_share(_colours()), _share(_alpha())]), RGB, t338=0),
}
GREY: dict[str, Callable[[], bytes]] = {
    "floats, big-endian and packed": lambda: tiff_of(_share(_grey()), BLACK_IS_ZERO, order=">", packed=True),
    "floats of 16 bits": lambda: tiff_of(_share(_grey(), np.float16), BLACK_IS_ZERO),
    "floats, white is 0": lambda: tiff_of(_share(255 - _grey()), WHITE_IS_ZERO),
    "white is 0, in a plane": lambda: tiff_of(255 - _grey(), WHITE_IS_ZERO, planes=True),
    "16 bits, white is 0": lambda: tiff_of(_wide(255 - _grey()), WHITE_IS_ZERO),
    "big-endian BigTIFF": lambda: tiff_of(_grey(), BLACK_IS_ZERO, order=">", big=True),
}
TRANSPARENT: dict[str, Callable[[], bytes]] = {
    "floats": lambda: tiff_of(np.dstack([_share(_colours()), _share(_alpha())]), RGB, t338=2),
    "16 bits in planes": lambda: tiff_of(_wide(np.dstack([_colours(), _alpha()])), RGB, planes=True, t338=2),
    "ink": lambda: tiff_of(np.dstack([_inks(), _alpha()]), INKS, t338=2),
    "ink of 16 bits": lambda: tiff_of(_wide(np.dstack([_inks(), _alpha()])), INKS, t338=2),
    "Lab": lambda: tiff_of(np.dstack([_lab(255, 1).astype(np.uint8), _alpha()]), LAB, t338=2),
    "Lab of 16 bits": lambda: tiff_of(
        np.dstack([_lab(65_535, 256).astype(np.uint16), _wide(_alpha())]), LAB, t338=2),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_any_numbers_become_the_same_picture(name: str) -> None:
    result = prepared_pixels(KINDS[name]())
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert difference(result, _colours()) < 0.6


@pytest.mark.parametrize("name", GREY)
def test_grey_in_any_numbers_keeps_its_brightness(name: str) -> None:
    result = prepared_pixels(GREY[name]())
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert difference(result, np.repeat(_grey(), 3, axis=2)) < 0.6


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparency_beside_any_colours_survives(name: str) -> None:
    result = prepared_pixels(TRANSPARENT[name]())
    assert (result[..., 3:] == _alpha()).all()
    assert difference(result[..., :3], _colours()) < 1.5


def test_grey_and_transparency_of_16_bits_survive() -> None:
    result = prepared_pixels(tiff_of(_wide(np.dstack([_grey(), _alpha()])), BLACK_IS_ZERO, t338=2))
    assert (result == np.dstack([np.repeat(_grey(), 3, axis=2), _alpha()])).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_numbers_of_any_kind_come_out_upright(orientation: int) -> None:
    turned = {
        1: lambda pixels: pixels,
        2: lambda pixels: pixels[:, ::-1],
        3: lambda pixels: pixels[::-1, ::-1],
        4: lambda pixels: pixels[::-1],
        5: lambda pixels: pixels.transpose(1, 0, 2),
        6: np.rot90,
        7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: lambda pixels: np.rot90(pixels, -1),
    }
    data = tiff_of(_share(turned[orientation](_colours())), RGB, t274=orientation)
    assert (sniff(data).width, sniff(data).height) == (WIDTH, HEIGHT)
    assert difference(prepared_pixels(data), _colours()) < 0.6


def test_floats_beyond_0_to_1_are_stretched_and_no_number_is_black() -> None:
    pixels = np.zeros((16, 16, 3), np.float32)
    pixels[:, 8:] = 4
    pixels[:, 4:8] = 1
    pixels[0, 0] = np.nan, np.inf, -np.inf
    result = prepared_pixels(tiff_of(pixels, RGB))
    assert [tuple(result[at]) for at in ((0, 0), (0, 4), (0, 8))] == [(0, 0, 0), (64, 64, 64), (255, 255, 255)]


def test_infinite_grey_is_the_whitest_or_blackest_of_the_picture() -> None:
    pixels = np.full((16, 16, 1), 0.5, np.float32)
    pixels[0, :5, 0] = np.nan, np.inf, -np.inf, 0.25, 1.0
    assert prepared_pixels(tiff_of(pixels, BLACK_IS_ZERO))[0, :6, 0].tolist() == [0, 255, 0, 64, 255, 128]
    pixels[0, 4] = 2  # beyond 1: stretched
    assert prepared_pixels(tiff_of(pixels, BLACK_IS_ZERO))[0, :6, 0].tolist() == [0, 255, 0, 32, 255, 64]
    assert not prepared_pixels(tiff_of(np.full((16, 16, 1), np.inf, np.float32), BLACK_IS_ZERO)).any()


def test_floats_of_light_go_through_their_profile_before_they_lose_their_dark_levels() -> None:
    light = np.linspace(0, 0.02, 64, dtype=np.float32)
    data = tiff_of(np.repeat(np.tile(light, (16, 1))[..., None], 3, axis=2), RGB, t34675=display_p3(1.0))
    prepared = prepare(data, MEDIA)
    linear = np.clip(light.astype(float), 0, 1)
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055) * 255
    assert prepared.notes == ()
    assert np.abs(np.asarray(prepared.image)[8, :, 1] - expected).max() < 2
    assert len(P3) == 3


def test_a_broken_profile_of_floats_is_ignored_with_a_note() -> None:
    prepared = prepare(tiff_of(_share(_colours()), RGB, t34675=b"no profile at all" * 20), MEDIA)
    assert "colour profile ignored" in prepared.notes[0]
    assert difference(np.asarray(prepared.image), _colours()) < 0.6


def _squeezed(pixels: np.ndarray, meaning: int, bits: int, **more: int) -> bytes:
    """A TIFF of channels of any bits, each row of which ends on a byte."""
    levels = (pixels.astype(np.uint32) * ((1 << bits) - 1) + 127) // 255
    rows = ("".join(f"{level:0{bits}b}" for level in row.ravel()) for row in levels)
    stored = b"".join(int(row + "0" * (-len(row) % 8), 2).to_bytes((len(row) + 7) // 8) for row in rows)
    return tiff_of(pixels, meaning, stored=stored, t258=(bits,) * pixels.shape[2], **more)


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_between_those_of_bytes_are_read(bits: int, orientation: int) -> None:
    turns = {1: 0, 3: 2, 6: 3}
    result = prepared_pixels(_squeezed(_colours(), RGB, bits, t274=orientation))
    assert difference(result, np.rot90(_colours(), turns[orientation])) < 0.2
    grey = np.rot90(np.repeat(_grey(), 3, axis=2), turns[orientation])
    for meaning, levels in ((BLACK_IS_ZERO, _grey()), (WHITE_IS_ZERO, 255 - _grey())):
        assert difference(prepared_pixels(_squeezed(levels, meaning, bits, t274=orientation)), grey) < 0.2


@pytest.mark.parametrize(("across", "down"), [(2, 2), (2, 1), (1, 2), (4, 1), (4, 4)])
def test_pixels_may_share_their_colours(across: int, down: int) -> None:
    colours = np.asarray(Image.new("RGB", (WIDTH, HEIGHT), (200, 100, 50)).convert("YCbCr")).copy()
    colours[..., 0] = _grey()[..., 0] // 4 + 100
    blocks = (
        colours[top : top + down, left : left + across]
        for top in range(0, HEIGHT, down)
        for left in range(0, WIDTH, across)
    )
    stored = b"".join(block[..., 0].tobytes() + block[0, 0, 1:].tobytes() for block in blocks)
    data = tiff_of(colours, 6, stored=stored, t530=(across, down))
    expected = np.asarray(Image.fromarray(colours, "YCbCr").convert("RGB"))
    assert difference(prepared_pixels(data), expected) < 1.5
    with pytest.raises(BadImage, match="the tiff data is broken"):
        prepare(data[:-20], MEDIA)


def test_tiles_may_be_listed_as_strips() -> None:
    data = tiff_of(_colours(), RGB, tiled=True, t256=WIDTH - 5, t257=HEIGHT - 7)
    for tile, strip in ((324, 273), (325, 279)):
        data = data.replace(struct.pack("<HH", tile, 4), struct.pack("<HH", strip, 4))
    assert difference(prepared_pixels(data), _colours()[:-7, :-5]) < 0.2


def test_whose_picture_it_is_survives() -> None:
    source = prepare(tiff_of(_share(_colours()), RGB, t33432=b"(c) 2026 Ada"), MEDIA).source
    assert source.copyright == "(c) 2026 Ada"


def test_tiles_that_cannot_be_decoded_are_refused_rather_than_shown_black() -> None:
    whole = bytearray(tiff_of(_wide(255 - _grey()), WHITE_IS_ZERO, tiled=True, packed=True))
    whole[-200:-100] = b"\x55" * 100
    with pytest.raises(BadImage, match="the tiff data is broken: it is damaged or cut short"):
        prepare(bytes(whole), MEDIA)


@pytest.mark.parametrize("data", [
    tiff_of(_wide(_colours()), RGB, planes=True, tiled=True),
    tiff_of(np.dstack([_grey(), _alpha()]), BLACK_IS_ZERO, planes=True, t338=2),  # all of which was invisible
    tiff_of(np.dstack([_grey(), _alpha()]), 3, planes=True, t338=2, t320=tuple(range(768))),  # as well
    tiff_of(_lab(255, 1).astype(np.uint8), LAB, planes=True),
    tiff_of(_wide(_grey()) >> 4, BLACK_IS_ZERO, t258=11),
    tiff_of(_colours().astype(np.int16), RGB),
    tiff_of(_share(_colours()), 6),
    tiff_of(_share(_colours()), RGB, t259=50_000),
    tiff_of(_colours(), RGB, t259=50_001),
])  # fmt: skip
def test_what_is_not_read_for_sure_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(BadImage, match="or it is of a kind that is not read: send JPEG, PNG"):
        sniff(data)
