"""PNGs that libvips decodes: pixel for pixel what Pillow makes of them, and no more of the broken ones."""

from __future__ import annotations

import io
import random
import zlib

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging import opening
from imgpipe_orchestration_tests.imaging import corpus, hostile

_OF_COLOUR = {"L": 0, "RGB": 2, "RGBA": 6}
_BANDS = {"L": 1, "RGB": 3, "RGBA": 4}


def _rows(mode: str, size: tuple[int, int]) -> bytes:
    """Scan lines with each of PNG's five filters by turns, over noise: what they say need not make sense to be read."""
    bytes_a_row = size[0] * _BANDS[mode]
    noise = random.Random(7)
    return b"".join(bytes([y % 5]) + noise.randbytes(bytes_a_row) for y in range(size[1]))


def _png(mode: str, size: tuple[int, int], stream: bytes) -> bytes:
    return hostile.png(*size, body=stream, colour=_OF_COLOUR[mode])


def _by_pillow(data: bytes) -> np.ndarray | None:
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except Exception:
        return None


def _by_us(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(opening.decode(opening.open_original(data)))
    except BadImage:
        return None


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (64, 41), (1, 300), (300, 1)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_filter_and_shape_gives_the_same_pixels(mode: str, size: tuple[int, int]) -> None:
    data = _png(mode, size, zlib.compress(_rows(mode, size)))

    expected = _by_pillow(data)

    assert expected is not None
    np.testing.assert_array_equal(_by_us(data), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_stream_that_is_cut_flipped_or_too_long_is_read_as_pillow_reads_it(mode: str) -> None:
    """The chunks' sums are right throughout, so nothing but the decoder looks at the stream."""
    size, chance = (64, 41), random.Random(3)
    lines = np.asarray(corpus.picture(*size).convert(mode))
    photograph = b"".join(bytes([y % 5]) + line.tobytes() for y, line in enumerate(lines))
    read, refused = 0, 0
    for number in range(600):
        stream = bytearray(zlib.compress(photograph if number % 2 else _rows(mode, size)))
        match number % 4:
            case 0:
                del stream[chance.randrange(len(stream)) :]
            case 1:
                stream[chance.randrange(len(stream))] ^= 1 << chance.randrange(8)
            case 2:
                stream += chance.randbytes(chance.randrange(1, 50))
            case 3:
                stream[-chance.randrange(1, 6)] ^= 255
        data = _png(mode, size, bytes(stream))

        expected, found = _by_pillow(data), _by_us(data)

        if expected is None:
            assert found is None
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
            read += 1
    assert read > 100
    assert refused > 100
