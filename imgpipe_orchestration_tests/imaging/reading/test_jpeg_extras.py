"""What stands in a JPEG ahead of its picture, and may be cut short."""

from __future__ import annotations

import pytest

from imgpipe_orchestration_tests.imaging.corpus import difference, encoded, picture, prepared_pixels
from imgpipe_orchestration_tests.imaging.profiles import display_p3


def _segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + (2 + len(content)).to_bytes(2) + content


def _profile_part(content: bytes, number: int, total: int) -> bytes:
    return _segment(0xE2, b"ICC_PROFILE\0" + bytes([number, total]) + content)


@pytest.mark.parametrize("segment", [
    _segment(0xE0, b"JFIF\0"),
    _segment(0xEE, b"Adobe"),
    _segment(0xE2, b"ICC_PROFILE\0"),
    _segment(0xE2, b"ICC_PROFILE\0\1"),
    _profile_part(b"", 1, 1),
    _profile_part(display_p3()[:200], 1, 1),
    _profile_part(display_p3(), 1, 2),
    _profile_part(display_p3()[:200], 1, 2) + _profile_part(display_p3()[200:], 2, 3),
])  # fmt: skip
@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_a_jpeg_is_shown_without_what_is_cut_short_ahead_of_its_picture(segment: bytes, mode: str) -> None:
    data = encoded(picture(160, 120).convert(mode), "JPEG")
    assert (prepared_pixels(data[:2] + segment + data[2:]) == prepared_pixels(data)).all()


@pytest.mark.parametrize("parts", [
    _profile_part(display_p3(), 1, 1) * 2,
    _profile_part(display_p3()[200:], 2, 2) + _profile_part(display_p3()[:200], 1, 2),
])  # fmt: skip
def test_a_jpeg_may_tell_its_profile_twice_and_behind_its_size(parts: bytes) -> None:
    data = encoded(picture(160, 120), "JPEG")
    at = data.index(b"\xff\xda")
    expected = prepared_pixels(encoded(picture(160, 120), "JPEG", icc_profile=display_p3()))
    assert (prepared_pixels(data[:at] + parts + data[at:]) == expected).all()
    assert difference(prepared_pixels(data), expected) > 2
