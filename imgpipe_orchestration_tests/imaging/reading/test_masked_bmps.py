"""BMPs whose pixels have their bits wherever they like, and those whose masks make no sense."""

from __future__ import annotations

import numpy as np
import pytest

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare
from imgpipe_orchestration_tests.imaging import hostile

WIDTH, HEIGHT = 37, 1200
"""Odd, so that rows of 16 bits are filled up, and more than is taken apart in one go."""
MASKS = {
    "4444": (16, (0xF00, 0xF0, 0xF, 0xF000)),
    "444": (16, (0xF00, 0xF0, 0xF, 0)),
    "5551": (16, (0x7C00, 0x3E0, 0x1F, 0x8000)),
    "880": (16, (0xFF00, 0xFF, 0, 0)),
    "565 and bits that are not there": (16, (0xF800, 0x7E0, 0x1F, 0xFF000000)),
    "1010102": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0xC0000000)),
    "11 11 10": (32, (0xFFE00000, 0x1FFC00, 0x3FF, 0)),
    "bytes in an odd order": (32, (0xFF00, 0xFF0000, 0xFF, 0xFF000000)),
    "1 1 29 1": (32, (1, 2, 0x7FFFFFFC, 0x80000000)),
}


def _stored(pixels: np.ndarray, bits: int, *, downwards: bool) -> bytes:
    rows = pixels if downwards else pixels[::-1]
    return b"".join(row.astype(f"<u{bits // 8}").tobytes().ljust((WIDTH * bits + 31) // 32 * 4, b"\0") for row in rows)


def _channel(pixels: np.ndarray, mask: int) -> np.ndarray:
    low, most = (mask & -mask).bit_length() - 1, mask >> (mask & -mask).bit_length() - 1
    found = (pixels & mask) >> low
    return found >> max(most.bit_length() - 8, 0) if most > 255 else np.floor(found * 255 / most + 0.5)


@pytest.mark.parametrize("downwards", [False, True])
@pytest.mark.parametrize(("header", "kind"), [(40, 3), (40, 6), (52, 3), (56, 3), (108, 3), (124, 3)])
@pytest.mark.parametrize("name", MASKS)
def test_each_bit_counts_where_its_mask_says(name: str, header: int, kind: int, downwards: bool) -> None:
    bits, masks = MASKS[name]
    pixels = np.random.default_rng(1).integers(0, 1 << bits, (HEIGHT, WIDTH), dtype=np.uint64)
    height = -HEIGHT if downwards else HEIGHT
    body = _stored(pixels, bits, downwards=downwards)
    bmp = hostile.masked_bmp(WIDTH, height, bits, masks, body, header=header, kind=kind)
    seen = np.asarray(prepare(bmp, MEDIA).image)
    has_alpha = bool(masks[3] & ((1 << bits) - 1)) and (header >= 56 or kind == 6)
    assert seen.shape == (HEIGHT, WIDTH, 4 if has_alpha else 3)
    for channel, mask in zip(range(seen.shape[2]), masks, strict=False):
        # Pillow's own ways round a level otherwise.
        assert np.abs(seen[..., channel] - (_channel(pixels, mask) if mask else 0.0)).max() <= 1, channel


@pytest.mark.parametrize(
    "masks",
    [
        pytest.param((0xF0F, 0xF0, 0xF000, 0), id="a gap"),
        pytest.param((0xFF0, 0xF0, 0xF, 0), id="one upon another"),
        pytest.param((0, 0, 0, 0xFFFF), id="no colours"),
    ],
)
def test_masks_that_are_no_channels_are_refused(masks: tuple[int, int, int, int]) -> None:
    with pytest.raises(BadImage, match="the bmp is of a kind that is not read: send JPEG, PNG"):
        prepare(hostile.masked_bmp(8, 8, 16, masks, bytes(128)), MEDIA)


def test_missing_rows_are_told() -> None:
    with pytest.raises(BadImage, match="the bmp is cut short: 3,190 bytes cannot hold 40x40 pixels; save it anew"):
        sniff(hostile.masked_bmp(40, 40, 16, MASKS["4444"][1], bytes(39 * 80)))
