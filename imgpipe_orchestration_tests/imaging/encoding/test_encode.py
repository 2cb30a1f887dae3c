"""One picture as one file."""

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from imgpipe_orchestration.imaging.encoding.encode import encode
from imgpipe_orchestration.imaging.reading.metadata import exif_block
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration_tests.imaging.corpus import difference, picture


def test_one_picture_saved_by_many_threads_at_once_gives_the_same_bytes_each_time() -> None:
    """Pillow keeps a save's options on the image: shared, 71 of 120 files came out wrong."""
    image = picture(160, 120)
    jobs = [(kind, quality) for kind in ("avif", "jpeg", "webp", "png") for quality in (40, 60, 80, 95)] * 6
    alone = {job: encode(image, *job, MEDIA) for job in set(jobs)}
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: encode(image, *job, MEDIA), jobs))
    assert all(data == alone[job] for job, data in zip(jobs, together, strict=True))


def test_the_transparency_of_small_letters_is_kept_whatever_the_quality_of_the_colours() -> None:
    letters = Image.new("L", (480, 200))
    for line in range(8):
        ImageDraw.Draw(letters).text(
            (4, 4 + 24 * line), "seit 1887 - fine small letters, 0123456789", 255, font_size=18
        )
    logo = Image.new("RGB", letters.size, (20, 30, 90))
    logo.putalpha(letters)
    for subsampling in ("4:2:0", "4:4:4"):
        recipe = dataclasses.replace(MEDIA, avif_subsampling=subsampling)
        with Image.open(io.BytesIO(encode(logo, "avif", 15, recipe))) as file:
            off = np.asarray(file.getchannel("A"), int) - np.asarray(letters, int)
        assert np.abs(off).max() < 45


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("has_writer", [True, False])
def test_avif_keeps_colours_transparency_and_owner_whichever_library_writes_it(
    mode: str, has_writer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_writer:
        monkeypatch.setattr(cv2, "haveImageWriter", lambda _: False)
        monkeypatch.setattr(cv2, "imencodeWithMetadata", None)
    image = picture(240, 160).convert(mode)
    if mode == "RGBA":
        image.paste((0, 0, 0, 0), (0, 0, 80, 160))
    data = encode(image, "avif", 80, MEDIA, exif_block({"copyright": "(c) 2026 Ada"}))
    with Image.open(io.BytesIO(data)) as opened:
        assert (opened.format, opened.mode, opened.size) == ("AVIF", mode, (240, 160))
        assert opened.getexif()[ExifTags.Base.Copyright] == "(c) 2026 Ada"
        shown = np.asarray(opened)[:, 80:]
    assert difference(shown[..., :3], np.asarray(image)[:, 80:, :3]) < 6
    if mode == "RGBA":
        with Image.open(io.BytesIO(data)) as opened:
            assert np.asarray(opened)[:, :78, 3].max() < 8
            assert shown[:, 4:, 3].min() > 247
