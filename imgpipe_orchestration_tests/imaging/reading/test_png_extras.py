"""What stands in a PNG beside its picture, and may be broken."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration_tests.imaging.corpus import (
    difference,
    encoded,
    flat_png,
    picture,
    png_chunk,
    prepared_pixels,
)
from imgpipe_orchestration_tests.imaging.profiles import display_p3


@pytest.mark.parametrize("extra", [
    (b"tEXt", b"note\0broken", 1),
    (b"gAMA", b"\0\0", 0),
    (b"pHYs", b"", 0),
    (b"zTXt", b"note\0\7", 0),
    (b"zTXt", b"note\0\0" + zlib.compress(bytes(2_000_000)), 0),
    (b"tRNS", b"", 0),
    (b"tRNS", b"\0\1\0\1", 0),
    (b"tRNS", b"\0\1\0\1\0\1", 1),
    (b"acTL", b"", 0),
])  # fmt: skip
def test_a_png_is_shown_without_what_is_broken_beside_its_picture(extra: tuple[bytes, bytes, int]) -> None:
    kind, content, error = extra
    data = encoded(picture(160, 120), "PNG", icc_profile=display_p3())
    at = data.index(b"IDAT") - 4
    assert (prepared_pixels(data[:at] + png_chunk(kind, content, error) + data[at:]) == prepared_pixels(data)).all()


@pytest.mark.parametrize("extra", [(b"zTXt", b"note\0\7"), (b"gAMA", b"\0"), (b"PLTE", b"\0"), (b"IHDR", b"")])
def test_nor_is_it_lost_for_what_is_broken_behind_it(extra: tuple[bytes, bytes]) -> None:
    data = encoded(picture(160, 120).quantize(64), "PNG")
    at = data.index(b"IEND") - 4
    assert (prepared_pixels(data[:at] + png_chunk(*extra) + data[at:]) == prepared_pixels(data)).all()


@pytest.mark.parametrize("behind", [b"\0" * 16, b"IEND", bytes(1_000_000), png_chunk(b"zTXt", b"a\0\7") * 9000])
def test_what_stands_behind_the_end_of_a_png_does_not_matter(behind: bytes) -> None:
    data = encoded(picture(160, 120), "PNG")
    assert (prepared_pixels(data + behind) == prepared_pixels(data)).all()


def test_a_png_of_an_ios_app_is_named_with_what_to_do() -> None:
    data = encoded(picture(160, 120), "PNG")
    of_xcode = data[:8] + png_chunk(b"CgBI", b"P\0 \x02") + data[8:]
    with pytest.raises(BadImage, match=r"Xcode .*CgBI.* export it as PNG"):
        sniff(of_xcode)


def test_a_png_keeps_the_colours_of_a_profile_of_more_than_a_megabyte() -> None:
    small = display_p3()
    size = 1_200_000  # as those of some printers
    large = size.to_bytes(4) + small[4:] + random.Random(5).randbytes(size - len(small))
    data, plain = (encoded(picture(160, 120), "PNG", icc_profile=profile) for profile in (large, small))
    assert (prepared_pixels(data) == prepared_pixels(plain)).all()
    assert difference(prepared_pixels(data), np.asarray(picture(160, 120))) > 2


def test_the_first_profile_of_a_png_counts() -> None:
    profiles = [b"x\0\0" + zlib.compress(profile) for profile in (display_p3(), display_p3(1.0))]
    row = bytes((200, 100, 50)) * 32
    both, first = (flat_png(8, 2, row, *((b"iCCP", found) for found in some)) for some in (profiles, profiles[:1]))
    assert (prepared_pixels(both) == prepared_pixels(first)).all()


@pytest.mark.parametrize(("depth", "kind", "row", "late"), [
    (16, 2, bytes(range(192)), b"iCCP"),
    (8, 4, bytes(range(64)), b"iCCP"),
    (8, 3, b"\0\1" * 16, b"iCCP"),
    (8, 3, b"\0\1" * 16, b"tRNS"),
    (16, 0, b"\0\0\xff\xff" * 16, b"tRNS"),
])  # fmt: skip
def test_what_stands_behind_the_pixels_says_nothing_of_their_colours(
    depth: int, kind: int, row: bytes, late: bytes
) -> None:
    palette = [(b"PLTE", b"\xff\0\0\0\x80\0")] if kind == 3 else []
    plain = flat_png(depth, kind, row, *palette)
    content = b"p3\0\0" + zlib.compress(display_p3()) if late == b"iCCP" else b"\0\0"
    at = plain.index(b"IEND") - 4
    shown, expected = prepared_pixels(plain[:at] + png_chunk(late, content) + plain[at:]), prepared_pixels(plain)
    assert shown.shape == expected.shape
    assert (shown == expected).all()
