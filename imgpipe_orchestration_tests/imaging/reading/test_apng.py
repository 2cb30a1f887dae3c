"""Animated PNGs whose default image is none of their frames, or one that is broken."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging.corpus import encoded, picture, png_chunk, prepared_pixels


def _frame(number: int, kind: bytes, image: Image.Image, *, at: int = 0, error: int = 0) -> bytes:
    """A frame of an animated PNG, with its control chunk."""
    control = struct.pack(">5I2H2B", number, *image.size, at, at, 1, 10, 0, 0)
    pixels = encoded(image, "PNG").split(b"IDAT")[1][:-16]
    numbered = (number + 1).to_bytes(4) + pixels if kind == b"fdAT" else pixels
    return png_chunk(b"fcTL", control) + png_chunk(kind, numbered, error)


def _animated(frames: int, *later: bytes, default: bytes = b"") -> bytes:
    """An animated PNG whose default image is a picture, unless another is given."""
    plain = encoded(picture(160, 120), "PNG")
    at, end = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4
    pixels = default or plain[at:end]
    return plain[:at] + png_chunk(b"acTL", struct.pack(">II", frames, 0)) + pixels + b"".join(later) + plain[end:]


@pytest.mark.parametrize("frames", [1, 2])
def test_an_animation_whose_default_image_is_no_frame_gives_its_first_frame(frames: int) -> None:
    first, second = (picture(160, 120).transpose(turn) for turn in (Image.Transpose.ROTATE_180, Image.Transpose(0)))
    data = _animated(frames, _frame(0, b"fdAT", first), *([_frame(2, b"fdAT", second)] if frames == 2 else []))
    prepared = prepare(data, MEDIA)
    assert any("animated" in note for note in prepared.notes) == (frames == 2)
    assert (np.asarray(prepared.image) == np.asarray(first)).all()


@pytest.mark.parametrize("frame", [
    b"",
    _frame(1, b"fdAT", picture(160, 120)),  # out of turn
    _frame(0, b"fdAT", picture(40, 30), at=5),
    _frame(0, b"fdAT", picture(160, 120), at=5),
])  # fmt: skip
def test_an_animation_without_a_whole_first_frame_gives_its_default_image(frame: bytes) -> None:
    assert (prepared_pixels(_animated(1, frame)) == np.asarray(picture(160, 120))).all()


def test_a_later_frame_of_an_animation_may_be_broken() -> None:
    first = _frame(0, b"IDAT", picture(160, 120))
    data = _animated(2, _frame(1, b"fdAT", picture(160, 120), error=1), default=first)
    assert (prepared_pixels(data) == np.asarray(picture(160, 120))).all()
    with pytest.raises(BadImage, match="the checksum of a chunk fdAT"):
        sniff(_animated(2, _frame(0, b"fdAT", picture(160, 120), error=1)))
