"""The size in which an AVIF is coded: equal to what it claims wherever an encoder wrote it, and found in any header."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image

from imgpipe_orchestration.errors import BadImage, TooLarge
from imgpipe_orchestration.imaging.limits import Limits
from imgpipe_orchestration.imaging.reading.av1 import coded_sizes, readable
from imgpipe_orchestration.imaging.reading.boxes import Boxes
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging import hostile
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture, prepared_pixels

SIZES = [(1, 1), (15, 64), (101, 67), (333, 202), (3000, 17)]


def _claimed_and_coded(data: bytes) -> list[tuple[tuple[int, int], list[tuple[int, int] | None]]]:
    pictures = Boxes(data, most=1000).av1_pictures()
    return [(claimed, [size for size in coded_sizes(stream) if size]) for claimed, stream in pictures]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_an_encoder_s_file_is_coded_in_the_size_it_claims(size: tuple[int, int], mode: str) -> None:
    pictures = [(size, [size])] * (2 if mode == "RGBA" else 1)
    frames = [Image.new(mode, size, shade) for shade in (0, 90)]
    still = encoded(frames[0], "AVIF")
    film = encoded(frames[0], "AVIF", save_all=True, append_images=frames[1:])
    assert _claimed_and_coded(still) == pictures
    assert _claimed_and_coded(film) == pictures * 2  # the first frame as an item, and all of them as a track
    assert (sniff(still).width, sniff(film).height) == size


@pytest.mark.parametrize("size", SIZES)
def test_so_is_one_of_opencv_and_of_libheif(size: tuple[int, int]) -> None:
    width, height = size
    by_opencv = cv2.imencode(".avif", np.zeros((height, width, 3), np.uint8))[1].tobytes()
    assert _claimed_and_coded(by_opencv) == [(size, [size])]
    plain = pyvips.Image.black(width, height, bands=3).copy(interpretation="srgb")
    assert _claimed_and_coded(plain.heifsave_buffer(compression="av1")) == [(size, [size])]


def test_a_layer_may_be_smaller_than_the_picture() -> None:
    """The smallest of three layers of a public sample (`quebec_3layer_op2.avif`) has a quarter of its width."""
    assert sniff(hostile.avif_claiming(250, 200, coded=(1000, 800))).width == 250


def test_more_pixels_than_the_limit_are_refused_whatever_is_claimed() -> None:
    with pytest.raises(TooLarge, match="1000x800"):
        sniff(hostile.avif_claiming(250, 200, coded=(1000, 800)), Limits(max_pixels=100_000))


def test_a_second_sequence_header_counts_as_the_first_does() -> None:
    small, large = (encoded(Image.new("RGB", size), "AVIF") for size in ((64, 64), (4000, 4000)))
    header = large[large.index(b"mdat") + 6 :]
    header = header[: 2 + header[1]]
    assert header[0] == 0x0A
    for parts in (header, b"\x12\0" * 5 + header):
        with pytest.raises(BadImage, match="claims 64x64 pixels but is coded in 4000x4000"):
            sniff(hostile.avif_with(parts))
    assert sniff(small).width == 64


def test_the_longest_sequence_header_is_read_to_its_size() -> None:
    """Times, a decoder model and 32 operating points with all that each of them may have."""
    point = "000100000001" + "01000" + "1" + "1" + "1" * 65 + "1" + "0111"
    times = "1" + "0" * 64 + "1" + "00101" + "1" + "11111" + "1" * 42
    bits = "000" + "0" + "0" + times + "1" + "11111" + point * 32 + "1100" + "1011" + f"{1999:013b}" + f"{2999:012b}"
    content = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8))
    length = bytes([len(content) & 0x7F | 0x80, len(content) >> 7])
    assert list(coded_sizes(memoryview(b"\x12\0\x0a" + length + content))) == [None, (2000, 3000)]
    assert list(coded_sizes(memoryview(b"\x0c\x08" + content))) == [(2000, 3000)]


def _with_a_table_for_each_item(avif: bytes) -> bytes:
    """As cavif writes it: two boxes `ipma` where there was one. What stands behind moves by the second one's head."""
    data, at = bytearray(avif), avif.index(b"ipma") - 4
    length, entry = int.from_bytes(avif[at : at + 4]), 3 + avif[at + 18]
    entries = avif[at + 16 : at + 16 + entry], avif[at + 16 + entry : at + length]
    tables = [struct.pack(">I4sII", 16 + len(each), b"ipma", 0, 1) + each for each in entries]
    places = [avif.index(kind) - 4 for kind in (b"meta", b"iprp")]
    places += [avif.index(b"iloc") + 18 + 14 * item for item in (0, 1)]  # where the two items' bytes are
    for place in places:
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4]) + 16)
    data[at : at + length] = b"".join(tables)
    return bytes(data)


def test_properties_in_a_table_for_each_item_are_read_as_those_in_one() -> None:
    colours, alpha = picture(40, 30).copy(), Image.linear_gradient("L").resize((40, 30))
    colours.putalpha(alpha)
    avif = encoded(colours, "AVIF")
    several = _with_a_table_for_each_item(avif)
    assert several.count(b"ipma") == 2
    assert prepare(several, MEDIA).image == prepare(avif, MEDIA).image
    for length in range(len(b"....ftypavif"), len(several)):
        assert len(readable(several[:length], Limits())) == length


def _with_matrix(avif: bytes, coefficients: int) -> bytes:
    at = avif.index(b"nclx") + 8
    return avif[:at] + coefficients.to_bytes(2) + avif[at + 2 :]


@pytest.mark.parametrize(("constant", "other"), [(10, 9), (13, 12)])
def test_colours_of_constant_luminance_are_read_as_those_without_it(constant: int, other: int) -> None:
    avif = encoded(picture(40, 30), "AVIF")
    read = prepare(_with_matrix(avif, constant), MEDIA).image
    assert read == prepare(_with_matrix(avif, other), MEDIA).image
    assert read != prepare(avif, MEDIA).image


@pytest.mark.parametrize("frames", [1, 2])
def test_any_major_brand_is_read_where_another_says_that_it_is_an_avif(frames: int) -> None:
    file = io.BytesIO()
    pictures = [picture(40, 30, seed=seed) for seed in range(frames)]
    pictures[0].save(file, "AVIF", save_all=True, append_images=pictures[1:])
    avif = file.getvalue()
    other = avif[:8] + b"MA1B" + avif[12:]
    assert prepare(other, MEDIA).image == prepare(avif, MEDIA).image
    assert sniff(other).animated == (frames > 1)


def test_any_file_of_boxes_that_is_cut_short_is_read_without_a_crash() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGBA", (64, 48), colour) for colour in ("red", "blue")]
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:])
    for length in range(0, len(file.getvalue()), 7):
        _claimed_and_coded(file.getvalue()[:length])


def _with_a_property(avif: bytes, content: bytes) -> bytes:
    """The first item has one property more. What stands behind moves by its length."""
    data, tables = bytearray(avif), avif.index(b"ipma") - 4
    count = tables + 18
    number = sum(avif[avif.index(b"ipco") : tables].count(kind) for kind in (b"ispe", b"pixi", b"av1C", b"colr")) + 1
    here = count + 1 + avif[count]
    data[count] += 1
    data[here:here] = bytes([number | 0x80])  # it must be understood
    data[tables:tables] = content
    for kind, more in ((b"meta", 1), (b"iprp", 1), (b"ipco", 0), (b"ipma", -len(content) + 1)):
        at = avif.index(kind) - 4 + (len(content) if kind == b"ipma" else 0)
        longer = int.from_bytes(data[at : at + 4]) + len(content) + more
        data[at : at + 4] = longer.to_bytes(4)
    at = avif.index(b"iloc") + 18
    data[at : at + 4] = (int.from_bytes(data[at : at + 4]) + len(content) + 1).to_bytes(4)
    return bytes(data)


def _clap(*numbers: int) -> bytes:
    return struct.pack(">I4s8i", 40, b"clap", *numbers)


@pytest.mark.parametrize(("numbers", "part"), [
    ((39, 1, 29, 1, -1, 2, -1, 2), (0, 0, 39, 29)),  # as libheif writes it for odd sides
    ((20, 1, 10, 1, 0, 1, 0, 1), (10, 10, 30, 20)),
    ((10, 1, 10, 1, 15, 1, -10, 1), (30, 0, 40, 10)),
    ((40, 2, 30, 3, 0, 5, 0, 7), (10, 10, 30, 20)),
    ((40, 1, 30, 1, 0, 1, 0, 1), (0, 0, 40, 30)),
    ((41, 1, 30, 1, 1, 2, 0, 1), (0, 0, 40, 30)),  # over an edge
    ((39, 1, 30, 1, 0, 1, 0, 1), (0, 0, 40, 30)),  # half pixels
    ((20, 0, 10, 1, 0, 1, 0, 1), (0, 0, 40, 30)),
    ((0, 1, 10, 1, 0, 1, 0, 1), (0, 0, 40, 30)),
])  # fmt: skip
def test_only_the_clean_aperture_is_shown(numbers: tuple[int, ...], part: tuple[int, int, int, int]) -> None:
    avif = encoded(picture(40, 30), "AVIF")
    cut = _with_a_property(avif, _clap(*numbers))
    assert prepare(cut, MEDIA).image == prepare(avif, MEDIA).image.crop(part)
    assert (sniff(cut).width, sniff(cut).height) == (part[2] - part[0], part[3] - part[1])


def test_an_avif_is_shown_without_exif_that_says_nothing() -> None:
    exif = Image.Exif()
    exif[0x010E] = "broken"
    data = bytearray(encoded(picture(64, 48), "AVIF", exif=exif.tobytes()))
    at = data.index(b"MM\0*")
    data[at : at + 4] = bytes(4)
    with pytest.raises(ValueError, match="Invalid Exif payload"):
        Image.open(io.BytesIO(data))
    assert (prepared_pixels(bytes(data)) == prepared_pixels(encoded(picture(64, 48), "AVIF"))).all()
