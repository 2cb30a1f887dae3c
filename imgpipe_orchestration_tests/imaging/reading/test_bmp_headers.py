"""BMPs with headers of every length, and palettes of more or fewer colours than a pixel has numbers for."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration_tests.imaging.corpus import prepared_pixels

WIDTH, HEIGHT = 24, 10


def _colours(count: int) -> list[tuple[int, int, int]]:
    return [(number * 37 % 256, number * 91 % 256, 255 - number % 256) for number in range(count)]


def _numbers(bits: int) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x + 3 * y) % (1 << bits)


def _bmp(
    bits: int,
    palette: list[tuple[int, int, int]],
    *,
    header: int = 40,
    said: int = 0,
    early: int = 0,
    compression: int = 0,
) -> bytes:
    """Written by hand: pixels that count through the palette.

    Args:
        header: length; what is beyond 40 bytes is 0, what is behind it is left out.
        said: colours that the header speaks of.
        early: bytes by which the pixels are said to begin before they do.
    """
    table = b"".join(bytes((blue, green, red, 0)) for red, green, blue in palette)
    rows = b""
    for row in _numbers(bits)[::-1]:
        digits = "".join(f"{number:0{bits}b}" for number in row)
        rows += int(digits + "0" * (-len(digits) % 32), 2).to_bytes(-(-len(digits) // 32) * 4)
    fields = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, bits, compression, 0, 0, 0, said, 0)
    start = 14 + header + len(table)
    head = struct.pack("<2sIII", b"BM", start + len(rows), 0, start - early)
    return head + fields.ljust(header, b"\0")[:header] + table + rows


def _expected(bits: int, palette: list[tuple[int, int, int]]) -> np.ndarray:
    known = np.zeros((1 << bits, 3), np.uint8)
    known[: len(palette)] = palette[: 1 << bits]
    return known[_numbers(bits)]


@pytest.mark.parametrize("header", [16, 20, 24, 36, 40, 42, 46, 48, 52, 56, 60, 64, 108, 124])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_header_may_end_anywhere(bits: int, header: int) -> None:
    palette = _colours(1 << bits)
    assert (prepared_pixels(_bmp(bits, palette, header=header)) == _expected(bits, palette)).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 200, 300, 1000])
def test_a_palette_may_have_any_number_of_colours(bits: int, count: int) -> None:
    palette = _colours(count)
    assert (prepared_pixels(_bmp(bits, palette, said=count)) == _expected(bits, palette)).all()


@pytest.mark.parametrize("palette", [[(0, 0, 0), (255, 255, 255)], [(0, 0, 0), (1, 1, 1), (2, 2, 2)]])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_few_levels_of_grey_are_no_pixels_of_fewer_bits(bits: int, palette: list[tuple[int, int, int]]) -> None:
    assert (prepared_pixels(_bmp(bits, palette, said=len(palette))) == _expected(bits, palette)).all()


@pytest.mark.parametrize("said", [0, 300, 2**31])
def test_a_palette_that_is_said_to_be_larger_than_it_is_ends_where_a_pixel_s_numbers_end(said: int) -> None:
    palette = _colours(256)
    assert (prepared_pixels(_bmp(8, palette, said=said, early=4)) == _expected(8, palette)).all()


@pytest.mark.parametrize("compression", [3, 4])
def test_a_way_of_os2_s_own_to_compress_is_refused(compression: int) -> None:
    with pytest.raises(BadImage, match="the bmp is of a kind that is not read"):
        sniff(_bmp(1, _colours(2), header=24 + 24, compression=compression))
