"""PNGs as other programs write them."""

from __future__ import annotations

import pytest

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration_tests.imaging.corpus import (
    encoded,
    picture,
    png_chunk,
    prepared_pixels,
)


@pytest.mark.parametrize("behind", [b"\0" * 16, b"IEND", bytes(1_000_000), png_chunk(b"zTXt", b"a\0\7") * 9000])
def test_what_stands_behind_the_end_of_a_png_does_not_matter(behind: bytes) -> None:
    data = encoded(picture(160, 120), "PNG")
    assert (prepared_pixels(data + behind) == prepared_pixels(data)).all()


def test_a_png_of_an_ios_app_is_named_with_what_to_do() -> None:
    data = encoded(picture(160, 120), "PNG")
    of_xcode = data[:8] + png_chunk(b"CgBI", b"P\0 \x02") + data[8:]
    with pytest.raises(BadImage, match=r"Xcode .*CgBI.* export it as PNG"):
        sniff(of_xcode)
