"""The photographs: really there, licensed, and made larger without repeating themselves."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.devstack import photos


@pytest.mark.parametrize("photo", photos.PHOTOS, ids=lambda photo: photo.name)
def test_every_photograph_is_kept_here_under_a_free_licence_that_its_page_names(photo: photos.Photo) -> None:
    assert photo.licence in {"CC0", "public domain"}
    row = next(line for line in (photos.FOLDER / "README.md").read_text().splitlines() if f"| {photo.file} |" in line)
    assert photo.by in row
    assert photo.licence in row
    image = photos.open_photo(photo.name)
    assert min(image.size) >= 300
    assert np.asarray(image).std() > 10, "a photograph has contrast"


def test_an_enlarged_photograph_keeps_its_shape() -> None:
    with Image.open(io.BytesIO(photos.jpeg("coffee", width=1800))) as image:
        assert (image.format, image.size) == ("JPEG", (1800, 1200))


def test_large_pictures_differ_by_seed_and_repeat_for_it() -> None:
    one, two = photos.large(1), photos.large(2)
    assert one != two
    assert one == photos.large(1)
    with Image.open(io.BytesIO(one)) as image:
        assert image.width * image.height == 6_000_000
    assert len(one) < 5 * 1024 * 1024, "an upload may have 5 MB"
