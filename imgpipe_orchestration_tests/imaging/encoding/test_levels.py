"""Levels against what the encoders do: these fail when a new release of one has another scale."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from imgpipe_orchestration.imaging.encoding.encode import encode
from imgpipe_orchestration.imaging.encoding.levels import Lossy, level_of, quality_at
from imgpipe_orchestration.imaging.encoding.ssimulacra2 import Reference
from imgpipe_orchestration.imaging.opencv import cv2
from imgpipe_orchestration.imaging.recipe import MEDIA
from imgpipe_orchestration_tests.imaging.corpus import photo

_by_opencv = pytest.mark.skipif(not cv2.haveImageWriter(".avif"), reason="Pillow's build of libavif has another scale")


def _gain(kind: Lossy, qualities: tuple[int, int], per: Callable[[Lossy, int], float]) -> float:
    """The points that the second quality gains over the first, for a unit of a scale; the median of five photos."""
    gains = []
    for name in ("astronaut", "coffee", "camera", "gravel", "retina"):
        original = photo(name).resize((320, 320), Image.Resampling.LANCZOS)
        reference = Reference(original)
        files = [encode(original, kind, quality, MEDIA) for quality in qualities]
        low, high = (reference.score(Image.open(io.BytesIO(file)).convert("RGB")) for file in files)
        gains.append((high - low) / (per(kind, qualities[1]) - per(kind, qualities[0])))
    return float(np.median(gains))


@pytest.mark.parametrize(
    ("kind", "usual", "odd"),
    [
        pytest.param("avif", (62, 66), (66, 67), marks=_by_opencv, id="avif at its jump"),
        pytest.param("webp", (77, 81), (70, 74), id="webp below the kink"),
    ],
)
def test_a_level_gains_as_much_where_a_step_of_quality_does_not(
    kind: Lossy, usual: tuple[int, int], odd: tuple[int, int]
) -> None:
    def steps(_kind: Lossy, quality: int) -> float:
        return quality

    by_quality = sorted((_gain(kind, usual, steps), _gain(kind, odd, steps)))
    by_level = sorted((_gain(kind, usual, level_of), _gain(kind, odd, level_of)))
    assert by_quality[1] > 1.7 * by_quality[0]
    assert by_level[1] < 1.4 * by_level[0]


@pytest.mark.parametrize("kind", ["avif", "webp", "jpeg"])
def test_a_quality_is_found_again_by_its_level(kind: Lossy) -> None:
    for quality in range(20, 93):
        found = quality_at(kind, level_of(kind, quality))
        assert level_of(kind, found) == level_of(kind, quality)
        assert found in (quality, quality - 1)
    assert level_of(kind, 20) < level_of(kind, 60) < level_of(kind, 90)


@pytest.mark.parametrize("kind", ["avif", "webp", "jpeg"])
def test_a_level_beyond_the_scale_is_the_end_of_it(kind: Lossy) -> None:
    assert quality_at(kind, level_of(kind, 90) + 100) >= 92
    assert quality_at(kind, -100) <= 20
