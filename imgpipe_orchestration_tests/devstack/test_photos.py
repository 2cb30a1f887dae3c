"""The photographs: really there, and licensed."""

import numpy as np
import pytest

from imgpipe_orchestration.devstack import photos


@pytest.mark.parametrize("name", photos.PHOTOS)
def test_every_photograph_is_kept_here_under_a_free_licence_that_its_page_names(name: str) -> None:
    file = photos.PHOTOS[name].name
    row = next(line for line in (photos.FOLDER / "README.md").read_text().splitlines() if f"| {file} |" in line)
    assert row.split("|")[-2].strip().startswith(("CC0", "public domain"))
    image = photos.open_photo(name)
    assert min(image.size) >= 300
    assert np.asarray(image).std() > 10, "a photograph has contrast"
