"""A PNG's gAMA and cHRM are honoured as browsers do, and what is nonsense in them changes nothing."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from imgpipe_orchestration_tests.imaging.corpus import flat_png, measure, png_chunk, prepared_pixels
from imgpipe_orchestration_tests.imaging.profiles import display_p3

Chunk = tuple[bytes, bytes]
COLOURS = [(200, 100, 50), (90, 160, 90), (30, 60, 150), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
SRGB = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
DISPLAY_P3 = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE_RGB = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
LINEAR = 100_000


def _gama(value: int) -> Chunk:
    return b"gAMA", struct.pack(">I", value)


GAMMA = _gama(45_455)
"""Without which primaries say nothing."""


def _chrm(*points: float) -> Chunk:
    return b"cHRM", struct.pack(">8I", *(round(point * 100_000) for point in points))


def _shown(colour: tuple[int, ...], *chunks: Chunk) -> np.ndarray:
    """The colour that a plain picture of it comes out in."""
    pixels = prepared_pixels(flat_png(8, 2 if len(colour) == 3 else 6, bytes(colour) * 32, *chunks))
    assert (pixels == pixels[0, 0]).all()
    result: np.ndarray = pixels[0, 0].astype(int)
    return result


def _curved(light: np.ndarray) -> np.ndarray:
    """Light to levels of sRGB (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055) * 255


@pytest.mark.parametrize("gamma", [LINEAR, 55_556, 66_667, 30_000])
@pytest.mark.parametrize("colour", COLOURS)
def test_a_gamma_is_undone(gamma: int, colour: tuple[int, int, int]) -> None:
    expected = _curved((np.array(colour) / 255) ** (100_000 / gamma))
    assert np.abs(_shown(colour, _gama(gamma)) - expected).max() <= 1


@pytest.mark.parametrize("colour", COLOURS)
def test_primaries_come_out_as_littlecms_has_them_by_a_profile(colour: tuple[int, int, int]) -> None:
    by_profile = _shown(colour, (b"iCCP", b"x\0\0" + zlib.compress(display_p3(2.2))))
    assert np.abs(_shown(colour, _gama(45_455), _chrm(*DISPLAY_P3)) - by_profile).max() <= 2


def test_adobe_rgb_is_converted_by_the_published_matrix() -> None:
    """Adobe RGB (1998) to XYZ and XYZ to sRGB, both under D65."""
    to_xyz = np.array([[0.57667, 0.18556, 0.18823], [0.29734, 0.62736, 0.07529], [0.02703, 0.07069, 0.99134]])
    from_xyz = np.array([[3.24097, -1.53738, -0.49861], [-0.96924, 1.87597, 0.04156], [0.05563, -0.20398, 1.05697]])
    for colour in COLOURS:
        light = from_xyz @ to_xyz @ (np.array(colour) / 255) ** 2.19921875
        found = _shown(colour, _gama(45_471), _chrm(*ADOBE_RGB))
        assert np.abs(found - _curved(np.clip(light, 0, 1))).max() <= 1


def test_another_white_stays_white() -> None:
    warm = (0.3457, 0.3585, *SRGB[2:])
    assert (_shown((255, 255, 255), GAMMA, _chrm(*warm)) == 255).all()
    grey = _shown((120, 120, 120), GAMMA, _chrm(*warm))
    assert np.abs(grey - 120).max() <= 1


@pytest.mark.parametrize("chunks", [
    [_gama(45_455), _chrm(*SRGB)],
    [_gama(45_455)],
    [_gama(45_000), _chrm(0.31269, 0.32899, 0.63999, 0.33001, 0.3, 0.6, 0.15, 0.05999)],
    [_chrm(*ADOBE_RGB)],
    [(b"cICP", bytes([12, 13, 0, 0]))],
    [(b"sRGB", b"\0"), _gama(LINEAR), _chrm(*ADOBE_RGB)],
    [(b"cICP", bytes([1, 13, 0, 1])), _gama(LINEAR), _chrm(*ADOBE_RGB)],
])  # fmt: skip
def test_what_says_srgb_is_shown_as_it_is(chunks: list[Chunk]) -> None:
    assert all(tuple(_shown(colour, *chunks)) == colour for colour in COLOURS)


def test_a_profile_counts_more_and_unknown_numbers_less() -> None:
    profile = (b"iCCP", b"x\0\0" + zlib.compress(display_p3()))
    colour = COLOURS[0]
    assert (_shown(colour, profile, _gama(LINEAR)) == _shown(colour, profile)).all()
    unknown = (b"cICP", bytes([2, 2, 0, 1]))
    assert (_shown(colour, unknown, _gama(LINEAR)) == _shown(colour, _gama(LINEAR))).all()


@pytest.mark.parametrize("chunk", [
    _gama(0), _gama(15), _gama(0xFFFFFFFF), (b"gAMA", b"\0\1\x86\xa0\0"),
    _chrm(*[0] * 8), _chrm(*[0.3] * 8), _chrm(*[42_949] * 8), (b"cHRM", bytes(36)),
    _chrm(0.3127, 0, *SRGB[2:]),  # a white without brightness
    _chrm(0.7, 0.3, *SRGB[2:]),  # a white outside the primaries
    _chrm(*SRGB[:2], 0.6, 0.3, 0.4, 0.3, 0.2, 0.3),  # primaries on a line
    _chrm(*SRGB[:2], 0.6, 0.30001, 0.4, 0.3, 0.2, 0.3),  # and almost on one
    _chrm(*SRGB[:2], 0.9, 0.9, *SRGB[4:]),  # beyond all colours
])  # fmt: skip
def test_nonsense_changes_nothing(chunk: Chunk) -> None:
    chunks = [GAMMA, chunk] if chunk[0] == b"cHRM" else [chunk]
    assert tuple(_shown(COLOURS[0], *chunks)) == COLOURS[0]


@pytest.mark.parametrize("intent", [b"", b"\4", b"\0\0"])
def test_nonsense_in_srgb_leaves_the_gamma(intent: bytes) -> None:
    chunks = (b"sRGB", intent), _gama(LINEAR)
    assert (_shown(COLOURS[0], *chunks) == _shown(COLOURS[0], _gama(LINEAR))).all()


@pytest.mark.parametrize("late", [False, True])
def test_a_gamma_that_is_broken_or_behind_the_pixels_changes_nothing(late: bool) -> None:
    plain = flat_png(8, 2, bytes(COLOURS[0]) * 32)
    at = plain.index(b"IEND" if late else b"IDAT") - 4
    chunk = png_chunk(*_gama(LINEAR), error=not late)
    assert (prepared_pixels(plain[:at] + chunk + plain[at:]) == COLOURS[0]).all()


@pytest.mark.parametrize("gamma", [16, 2_000, 625_000_000])
def test_the_wildest_gamma_is_a_gamma_still(gamma: int) -> None:
    assert set(_shown((255, 255, 255), _gama(gamma))) == {255}
    assert set(_shown((0, 0, 0), _gama(gamma))) == {0}
    assert set(_shown((250, 250, 250), _gama(gamma))) <= ({0} if gamma == 16 else set(range(256)))


@pytest.mark.parametrize(("depth", "kind", "row", "more"), [
    (8, 0, b"\x64" * 32, []),
    (16, 0, b"\x64\x64" * 32, []),
    (8, 4, b"\x64\xff" * 32, []),
    (8, 3, b"\1" * 32, [(b"PLTE", b"\0\0\0\x64\x64\x64")]),
    (16, 2, b"\x64\x64" * 96, []),
])  # fmt: skip
def test_so_it_is_in_pictures_of_every_kind(depth: int, kind: int, row: bytes, more: list[Chunk]) -> None:
    expected = _curved(np.array(0x64 / 255))
    assert np.abs(prepared_pixels(flat_png(depth, kind, row, _gama(LINEAR), *more)) - expected).max() <= 1


def test_transparency_is_left_alone_and_what_is_measured_is_what_is_shown() -> None:
    assert tuple(_shown((100, 100, 100, 77), _gama(LINEAR))) == (168, 168, 168, 77)
    measured = measure(flat_png(8, 2, b"\x64" * 96, _gama(LINEAR)))
    assert measured.thumbhash == measure(flat_png(8, 2, b"\xa8" * 96)).thumbhash
