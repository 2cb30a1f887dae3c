"""PNGs whose pixels end before their size does."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging.corpus import PNG, flat_png, png_chunk, prepared_pixels


@pytest.mark.parametrize(("depth", "kind", "row"), [(8, 2, 96), (16, 6, 256), (1, 0, 4), (8, 3, 32)])
def test_a_png_whose_pixels_end_early_is_cut_short(depth: int, kind: int, row: int) -> None:
    palette = [(b"PLTE", bytes(range(256)) * 3)] if kind == 3 else []
    data = flat_png(depth, kind, b"\x55" * row, *palette)
    assert prepared_pixels(data).any()
    assert len(prepared_pixels(flat_png(depth, kind, bytes(row), *palette))) == 32  # black is no sign of it
    taller = data[:8] + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 40, depth, kind, 0, 0, 0)) + data[33:]
    with pytest.raises(BadImage, match="the png is cut short"):
        prepare(taller, MEDIA)


def test_an_interlaced_png_is_cut_short_in_its_last_pass() -> None:
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    grey = np.full((13, 7), 90, np.uint8)
    rows = [b"\0" + row.tobytes() for x, y, dx, dy in steps for row in grey[y::dy, x::dx] if row.size]
    head = PNG + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 13, 8, 0, 0, 0, 1))
    assert (prepared_pixels(head + png_chunk(b"IDAT", zlib.compress(b"".join(rows)))) == 90).all()
    with pytest.raises(BadImage, match="the png is cut short"):
        prepare(head + png_chunk(b"IDAT", zlib.compress(b"".join(rows[:-1]))), MEDIA)
