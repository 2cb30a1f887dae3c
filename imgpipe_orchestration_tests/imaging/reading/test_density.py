"""Plain pictures of many pixels, as short as encoders write them, are read; what cannot hold its pixels is not."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import pyvips
from PIL import Image

from imgpipe_orchestration.errors import BadImage
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration_tests.imaging import hostile
from imgpipe_orchestration_tests.imaging.corpus import encoded

WIDTH, HEIGHT = 6000, 4000


def _plain(mode: str, kind: str, **options: object) -> Callable[[], bytes]:
    return lambda: encoded(Image.new(mode, (WIDTH, HEIGHT), 1 if mode in "1P" else "white"), kind, **options)


def _by_vips(saver: str, **options: object) -> Callable[[], bytes]:
    def make() -> bytes:
        data: bytes = getattr(pyvips.Image.black(WIDTH, HEIGHT), saver)(**options)
        return data

    return make


PLAIN = {
    "png": _plain("RGB", "PNG"),
    "png of one bit": _plain("1", "PNG"),
    "png with a palette": _plain("P", "PNG", optimize=True),
    "png of one bit by libvips": _by_vips("pngsave_buffer", compression=9, bitdepth=1),
    "jpeg": _plain("L", "JPEG", quality=20, optimize=True),
    "progressive jpeg": _plain("RGB", "JPEG", quality=20, progressive=True),
    "gif": _plain("P", "GIF"),
    "gif by libvips": _by_vips("gifsave_buffer"),
    "fax of one bit": _plain("1", "TIFF", compression="group4"),
    "tiff of one bit in lzw": _plain("1", "TIFF", compression="tiff_lzw"),
    "tiff of one bit in deflate": _plain("1", "TIFF", compression="tiff_adobe_deflate"),
    "tiff in packbits": _plain("L", "TIFF", compression="packbits"),
    "tiff in jpeg": _plain("L", "TIFF", compression="jpeg"),
    "tiff in lzma": _plain("L", "TIFF", compression="lzma"),
    "tiff in zstandard": _plain("L", "TIFF", compression="zstd"),
    "webp": lambda: encoded(Image.new("RGB", (4100, 4100), "white"), "WEBP", lossless=True, method=0),
    "avif": lambda: bytes(cv2.imencode(".avif", np.full((3000, 4000, 3), 255, np.uint8))[1]),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_picture_is_read_however_short_it_is(name: str) -> None:
    found = sniff(PLAIN[name]())
    assert found.width * found.height >= 12_000_000


def test_a_little_frame_on_a_canvas_that_costs_little_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    small = hostile.BOMBS["gif of a pixel on 49 megapixels"]().replace(b"\x58\x1b\x58\x1b", b"\xd0\x07\xd0\x07")
    assert sniff(small).width == 2000
    monkeypatch.setattr(limits, "EMPTY_PIXELS", 1_000_000)
    with pytest.raises(BadImage, match=r"almost empty: 35 bytes cannot hold 2000x2000 pixels; save it"):
        sniff(small)


@pytest.mark.parametrize("compression", [5, 7, 8, 32773, 34925])
def test_a_tiff_of_5_kb_holds_no_49_megapixels(compression: int) -> None:
    with pytest.raises(BadImage, match=r"cut short: 5,\d+ bytes cannot hold 7000x7000 pixels"):
        sniff(hostile.tiff(t256=7000, t257=7000, t278=7000, t259=compression))
