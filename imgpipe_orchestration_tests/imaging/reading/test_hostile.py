"""What strangers send: bombs, cut and flipped files, polyglots. Each costs itself and says what is wrong."""

import io
import json
import os
import random
import re
import struct
import subprocess
import sys
import time
import zipfile
from contextlib import closing
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.errors import BadImage, ImgpipeError, TooLarge
from imgpipe_orchestration.imaging import limits
from imgpipe_orchestration.imaging.measuring import look
from imgpipe_orchestration.imaging.reading.opening import decode
from imgpipe_orchestration.imaging.reading.sniff import sniff
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration.imaging.render import prepare, render
from imgpipe_orchestration.imaging.workshop import Workshop
from imgpipe_orchestration_tests.imaging import hostile
from imgpipe_orchestration_tests.imaging.corpus import (
    PNG,
    SMALL,
    difference,
    encoded,
    flat_png,
    picture,
    png_chunk,
    prepared_pixels,
)

KINDS = {
    "jpeg": lambda image: encoded(image, "JPEG", quality=85),
    "jpeg progressive": lambda image: encoded(image, "JPEG", quality=85, progressive=True),
    "png": lambda image: encoded(image, "PNG"),
    "webp": lambda image: encoded(image, "WEBP"),
    "avif": lambda image: encoded(image, "AVIF", speed=9),
    "gif": lambda image: encoded(image.quantize(64), "GIF"),
    "tiff": lambda image: encoded(image, "TIFF", compression="tiff_lzw"),
    "bmp": lambda image: encoded(image, "BMP"),
    "heic": lambda image: encoded(image, "HEIF", quality=80),
}


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, Any]]:
    """What each bomb costs a process that does nothing else."""
    if sys.platform != "linux":
        pytest.skip("peak memory is read from /proc")
    # Or a bomb would go unseen in memory that the one before it left behind.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-W", "ignore", "-m", hostile.__name__]
    run = subprocess.run(command, capture_output=True, check=True, timeout=240, env=environment)
    result: dict[str, dict[str, Any]] = json.loads(run.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize("name", [*hostile.BOMBS, *hostile.ODD])
def test_a_bomb_costs_no_more_than_its_share_and_is_refused_with_a_reason(
    name: str, costs: dict[str, dict[str, Any]]
) -> None:
    cost = costs[name]
    assert cost["bytes"] <= 50e6
    assert cost["cpu"] / 2 <= 0.1
    assert cost["errors"] or name in hostile.ODD
    assert all(error.startswith(("BadImage: ", "TooLarge: ")) for error in cost["errors"])


@pytest.mark.parametrize("name", KINDS)
def test_a_file_cut_anywhere_is_refused_or_complete(name: str) -> None:
    """Every 5 %: what is accepted must show the whole picture."""
    whole = KINDS[name](picture(96, 72))
    expected = prepared_pixels(whole)
    for percent in range(0, 100, 5):
        try:
            shown = prepared_pixels(whole[: len(whole) * percent // 100])
        except BadImage as error:
            assert error.public
        else:
            assert difference(shown, expected) < 1, percent


def test_a_png_whose_pixels_are_broken_is_refused_wherever_the_break_is() -> None:
    whole = encoded(picture(200, 150), "PNG")
    start = whole.index(b"IDAT") + 4
    wrong = start + np.linspace(2, len(whole) - start - 24, 12).astype(int)
    broken = [whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :] for at in wrong]
    for data in [*broken, whole[:start] + b"junk" * 10]:
        with pytest.raises(BadImage):
            prepare(data, MEDIA)


def test_a_gif_whose_second_frame_cannot_be_found_is_refused() -> None:
    frames = [picture(24, 18).rotate(turn).quantize(8) for turn in (0, 90, 45)]
    whole = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    second = whole.index(b",", whole.index(b"!\xf9", 100)) + 9
    with pytest.raises(BadImage, match="frame"):
        sniff(whole[:second] + b"\xff" + whole[second + 1 :])


def test_a_header_is_read_without_a_pixel() -> None:
    for name in ("jpeg", "png", "gif", "tiff", "bmp"):
        assert sniff(KINDS[name](picture(96, 72))).image.tile, name


def test_a_jpeg_that_lacks_only_its_end_marker_is_shown() -> None:
    for name in ("jpeg", "jpeg progressive"):
        whole = KINDS[name](picture(96, 72))
        assert (prepared_pixels(whole[:-2]) == prepared_pixels(whole)).all()
        with pytest.raises(BadImage, match="cut short"):
            prepare(whole[:-60], MEDIA)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_that_is_cut_between_two_restart_markers_is_refused(mode: str) -> None:
    """What a decoder finds there is a place to begin anew, as where nothing is missing."""
    whole = encoded(picture(150, 100).convert(mode), "JPEG", quality=80, restart_marker_blocks=3)
    cuts = [found.start() + more for found in re.finditer(rb"\xff[\xd0-\xd7]", whole) for more in (0, 1, 2)]
    assert len(cuts) > 60
    for cut in cuts:
        with pytest.raises(BadImage, match="cut short"):
            decode(sniff(whole[:cut]))


def test_the_film_that_a_phone_appends_to_a_jpeg_is_not_taken_for_its_scans() -> None:
    """Any bytes hold two that look like a scan's marker once in 65,536; so do those of a thumbnail in EXIF."""
    whole = encoded(picture(96, 72), "JPEG", quality=85, exif=b"Exif\0\0" + b"\xff\xda" * 120)
    assert sniff(whole + b"\xff\xda" * 200).width == 96


def test_a_jpeg_full_of_markers_behind_its_first_scan_is_refused() -> None:
    whole = encoded(picture(96, 72), "JPEG", quality=85)
    started = time.process_time()
    with pytest.raises(TooLarge, match="more than 5,000 parts"):
        sniff(whole[:-2] + b"\xff\xfe\0\2" * 1_200_000 + whole[-2:])
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("name", KINDS)
def test_flipped_bits_give_a_picture_or_a_plain_error(name: str) -> None:
    whole, dice = KINDS[name](picture(48, 36)), random.Random(7)
    for _ in range(60):
        try:
            prepare(_flipped(whole, dice), MEDIA)
        except ImgpipeError as error:
            assert error.public


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_thousands_of_flipped_bits_cost_no_worker_more_than_itself(name: str) -> None:
    whole = KINDS[name](picture(48, 36))
    dice = random.Random(11)
    with closing(Workshop(1, wall_seconds=20)) as shop:
        for _ in range(4):
            files = [_flipped(whole, dice) for _ in range(500)]
            for future in [shop.submit(look, file) for file in files]:
                assert future.exception() is None or isinstance(future.exception(), ImgpipeError)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow says what it thinks of such EXIF
def test_exif_full_of_nonsense_costs_little_and_not_the_picture() -> None:
    dice = random.Random(3)
    blocks = [b"MM\0*\0\0\0\x08" + (5400).to_bytes(2, "big") + dice.randbytes(64_000)]
    # A directory that points at itself, and one that claims four gigabytes.
    blocks.append(b"II*\0\x08\0\0\0\x01\0" + b"\x69\x87\x04\0\x01\0\0\0\x08\0\0\0" + b"\x08\0\0\0")
    blocks.append(b"II*\0\x08\0\0\0\x01\0" + b"\x98\x82\x02\0\xff\xff\xff\xff\x08\0\0\0" + bytes(4))
    for block in blocks:
        data = encoded(picture(64, 64), "JPEG", quality=95, exif=b"Exif\0\0" + block)
        started = time.process_time()
        assert prepare(data, MEDIA).image.size == (64, 64)
        assert time.process_time() - started < 0.5


def test_polyglots_are_what_their_pixels_say() -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.html", "<script>alert(1)</script>")
    both = encoded(picture(64, 64), "JPEG") + archive.getvalue()
    assert sniff(both).format == "jpeg"
    rendition = render(both, SMALL)
    assert all(b"evil.html" not in variant.data for variant in rendition.variants)
    script = b"GIF89a/*" + bytes(20) + b"*/=1;alert(1)"
    with pytest.raises(ImgpipeError):
        prepare(script, MEDIA)


def _unscaled_palette() -> bytes:
    """A TIFF whose palette has 8 bits, where the format wants 16."""
    data = encoded(picture(64, 48).quantize(64), "TIFF")
    levels = Image.open(io.BytesIO(data)).tag_v2[320]
    scaled, plain = (struct.pack("<768H", *numbers) for numbers in (levels, [level >> 8 for level in levels]))
    return data.replace(scaled, plain)


RARE = r"not read.*: (send|save it as) .*(JPEG|PNG)"
RAW = "a camera's raw file is not read: develop it and send JPEG"


@pytest.mark.parametrize(("data", "reason"), [
    (b"", "empty: it has 0 bytes"),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG is not accepted here"),
    (b"\xef\xbb\xbf<?xml version='1.0'?><!-- a --><svg/>", "SVG is not accepted here"),
    (b"<html><body>", "not an image but a web page"),
    (b"%PDF-1.7", "not an image but a PDF"),
    (b"PK\x03\x04", "not an image but a ZIP"),
    (b"Caf\xc3\xa9, " * 200, "not an image but plain text: send JPEG, PNG"),
    (bytes(range(128, 256)), "not an image of a kind that is read"),
    (b"\x7fELF\x02\x01\x01\x00", "not an image of a kind that is read"),
    (b"\0\0\0\x20ftypisom\0\0\0\0mp42", "media file of brand 'isom'"),
    (b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "^JPEG 2000 is not read: send JPEG, PNG"),
    (b"8BPS\0\1", "^a Photoshop document is not read: send JPEG, PNG"),
    (b"RIFF\x10\0\0\0WEBPVP8 ", "cut short"),
    (b"RIFF\x10\0\0\0WEBPVP8X", "cut short"),
    (b"Hello", "send JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP$"),
    (b"\xff\x0a\xcb\x06" + bytes(60), RARE),  # JPEG XL
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), RARE),
    (hostile.deep_tiff(64, 64, t284=2), RARE),
    (hostile.tiff(t258=32, t339=3, t279=16_384), RARE),
    (_unscaled_palette(), RARE),
    (hostile.bmp_of_runs(64, 64, b"\x40\1\0\0" * 64), RARE),
    (hostile.masked_bmp(64, 64, 16, (0xF00, 0xF0, 0xF, 0xF000), bytes(8192)), RARE),
    (hostile.masked_bmp(8, 8, 16, (0, 0, 0, 0), bytes(600), kind=4), "the bmp is of a kind that is not read"),
    (hostile.tiff(t258=7), "or it is of a kind that is not read: send JPEG, PNG"),
    (hostile.tiff(t254=1, t330=200), RAW),  # NEF, ARW, DNG: a preview first
    (hostile.tiff(t262=32803), RAW),  # PEF, and films' DNG: the sensor's values first
    (hostile.tiff_behind(b"CR\2\0"), RAW),
    (PNG + png_chunk(b"CgBI", b"P\0 \x02") + encoded(picture(16, 12), "PNG")[8:], "Xcode .*CgBI.* export it as PNG"),
    (flat_png(8, 3, bytes(32)), "the png has no palette"),
])  # fmt: skip
def test_what_is_no_image_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BadImage, match=reason):
        sniff(data)


@pytest.mark.parametrize("data", [
    hostile.tiff(t254=1),  # a smaller version
    hostile.tiff(t254=0, t330=200),  # what has smaller versions
    hostile.tiff_behind(bytes([67, 82, 99, 67])),  # pixels before the directory, of the colour #435263
])  # fmt: skip
def test_a_tiff_that_has_something_of_a_raw_file_is_none(data: bytes) -> None:
    assert sniff(data).width == 64


@pytest.mark.parametrize(("kind", "kept"), [("JPEG", 100), ("GIF", -40)])
def test_how_many_bytes_a_reader_missed_is_no_reason(kind: str, kept: int) -> None:
    with pytest.raises(BadImage, match=r"is damaged or cut short$"):
        prepare(encoded(picture(64, 64), kind)[:kept], MEDIA)


@pytest.mark.parametrize("behind", [b"\0" * 16, b"IEND", bytes(1_000_000), png_chunk(b"zTXt", b"a\0\7") * 9000])
def test_what_stands_behind_the_end_of_a_png_does_not_matter(behind: bytes) -> None:
    data = encoded(picture(160, 120), "PNG")
    assert (prepared_pixels(data + behind) == prepared_pixels(data)).all()


def test_each_limit_names_its_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(100, 80), "PNG")
    monkeypatch.setattr(limits, "MAX_SIDE", 90)
    with pytest.raises(TooLarge, match="longest side allowed is 90"):
        sniff(data)
    monkeypatch.setitem(limits._allowed, "pixels", 1000)
    with pytest.raises(TooLarge, match=r"100x80 = 0.0 megapixels, the limit is 0.001"):
        sniff(data)
    with pytest.raises(TooLarge, match="bytes, the limit is 10"):
        sniff(data, max_bytes=10)


def _flipped(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 8))):
        at = dice.randrange(len(changed)) if dice.random() < 0.5 else dice.randrange(min(200, len(changed)))
        changed[at] ^= 1 << dice.randrange(8)
    return bytes(changed)
