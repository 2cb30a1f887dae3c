"""Tiles of a large picture, put together without seams."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.imaging.encoding.encode import encode
from imgpipe_orchestration.imaging.encoding.excerpt import FLATTERED, excerpt_of
from imgpipe_orchestration.imaging.encoding.picture import Picture
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration_tests.imaging.corpus import photo

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("shape", [(1600, 2400, 3), (1411, 1411, 4), (2400, 605, 3), (770, 9000, 3), (40, 40_000, 3)])
def test_an_excerpt_has_at_most_768_pixels_a_side_and_only_pixels_of_the_picture(shape: tuple[int, ...]) -> None:
    picture = np.full(shape, 77, np.uint8)
    cut = excerpt_of(picture)
    assert cut.shape == (min(shape[0], 768), min(shape[1], 768), shape[2])
    assert (cut == 77).all()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_the_excerpt_of_a_photograph_scores_as_the_photograph_does(kind: Literal["jpeg", "webp"]) -> None:
    large = photo("retina").resize((2400, 2400), Image.Resampling.LANCZOS)
    whole = Picture(large, whole=True, scale=1.0, target=75.0)
    assert whole.excerpt is not None
    for quality in (60, 85):
        scores = [one.score(encode(one.image, kind, quality, MEDIA)) for one in (whole, whole.excerpt)]
        assert scores[1] == pytest.approx(scores[0], abs=1.5), quality


def test_the_advantage_of_an_excerpt_is_taken_off_its_score() -> None:
    pixels = Image.fromarray(RNG.integers(0, 256, (1500, 1000, 3), np.uint8))
    whole = Picture(pixels, whole=True, scale=1.0, target=75.0)
    assert whole.excerpt is not None
    alone = Picture(whole.excerpt.image, whole=True, scale=1.0, target=75.0)
    file = encode(alone.image, "jpeg", 80, MEDIA)
    assert whole.excerpt.score(file) == alone.score(file) - FLATTERED
