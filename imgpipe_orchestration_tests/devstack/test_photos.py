"""The photographs: really there, licensed, and made larger without repeating themselves."""

from __future__ import annotations

import numpy as np
import pytest

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
