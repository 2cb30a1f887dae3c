"""What libvips decodes: pixel for pixel what Pillow makes of it, and no more of the broken files."""

import io
import random
import zlib

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import ImgpipeError
from imgpipe_orchestration.imaging.reading import opening
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.resize import shrink_to
from imgpipe_orchestration_tests.imaging import corpus, hostile

_PNG_COLOUR = {"L": 0, "RGB": 2, "RGBA": 6}
_BANDS = {"L": 1, "RGB": 3, "RGBA": 4}
_JPEGS: dict[str, dict[str, object]] = {
    "4:2:0": {"quality": 75},
    "4:4:4": {"quality": 95, "subsampling": 0},
    "progressive": {"quality": 85, "subsampling": 1, "progressive": True},
    "with restart markers": {"quality": 30, "restart_marker_blocks": 3},
}


def _rows(mode: str, size: tuple[int, int]) -> bytes:
    """Scan lines with each of PNG's five filters by turns, over noise: what they say need not make sense to be read."""
    bytes_a_row = size[0] * _BANDS[mode]
    noise = random.Random(7)
    return b"".join(bytes([y % 5]) + noise.randbytes(bytes_a_row) for y in range(size[1]))


def _decoded(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(opening.decode(sniff(data)))
    except ImgpipeError:
        return None


def _assert_read_alike(files: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gives the same pixels, or is refused, whether libvips may decode it or not; many of both kinds."""
    read_by_libvips, streamed = [], opening.streamed

    def seen(*args: object, **options: object) -> Image.Image | None:
        result = streamed(*args, **options)  # type: ignore[arg-type]
        read_by_libvips.append(result is not None)
        return result

    monkeypatch.setattr(opening, "streamed", seen)
    found = [_decoded(data) for data in files]
    monkeypatch.setattr(opening, "streamed", lambda *_args, **_options: None)
    for data, pixels in zip(files, found, strict=True):
        expected = _decoded(data)
        assert (pixels is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(pixels, expected)
    assert sum(read_by_libvips) > len(files) / 5
    assert sum(pixels is None for pixels in found) > len(files) / 5


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_a_png_whose_stream_is_cut_flipped_or_too_long(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The chunks' sums are right throughout, so nothing but the decoder looks at the stream."""
    size, chance = (64, 41), random.Random(3)
    lines = np.asarray(corpus.picture(*size).convert(mode))
    photograph = b"".join(bytes([y % 5]) + line.tobytes() for y, line in enumerate(lines))
    files = []
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
        files.append(hostile.png(*size, body=bytes(stream), colour=_PNG_COLOUR[mode]))
    _assert_read_alike(files, monkeypatch)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", _JPEGS)
def test_a_jpeg_that_is_whole_cut_or_flipped(kind: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(5)
    files = []
    for number in range(200):
        picture = corpus.picture(120, 120).crop((0, 0, chance.randrange(1, 120), chance.randrange(1, 120)))
        data = bytearray(corpus.encoded(picture.convert(mode), "JPEG", **_JPEGS[kind]))
        match number % 3:
            case 1:
                del data[chance.randrange(len(data)) :]
            case 2:
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        files.append(bytes(data))
    _assert_read_alike(files, monkeypatch)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_shrinking_on_the_way_gives_the_pixels_of_shrinking_afterwards(kind: str) -> None:
    data = corpus.encoded(corpus.picture(900, 700), kind)
    with Image.open(io.BytesIO(data)) as image:
        expected = shrink_to(image, 600, 467)

    found = opening.decode(sniff(data), (600, 467))

    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))
