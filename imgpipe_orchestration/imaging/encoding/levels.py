"""Levels: even scales for the encoders' qualities, on which a step gains about as much score everywhere.

The encoders' own scales are uneven. libavif writes the very same file for some pairs of neighbouring qualities, and
between others any picture gains as much as in two usual steps. libwebp's scale has a kink at 75, above which a step is
worth three below it. A search on those scales would take this for a property of the picture. JPEG's is even enough.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import accumulate
from typing import Literal

Lossy = Literal["avif", "webp", "jpeg"]

_AVIF_REPEATS = {21, 23, 25, 27, 29, 31, 33, 36, 38, 41, 43, 46, 48, 51, 53, 57, 61, 65, 69, 73, 77, 81, 85, 89}
"""Qualities with the same file as the one below them: all 101 make 64 files. Of OpenCV's build of libavif; Pillow's,
which writes 4:4:4, repeats others."""
_AVIF_JUMPS = {45: 1.2, 47: 1.4, 67: 2.15, 68: 1.25, 75: 1.25}
"""Qualities that gain more than a usual step over the one below, and how many steps: medians of 82 photographs, the
same at 300 to 2400 px and at speeds 8 and 9."""
_AVIF_QUALITIES = [quality for quality in range(20, 93) if quality not in _AVIF_REPEATS]
_AVIF_LEVELS = list(accumulate(_AVIF_JUMPS.get(quality, 1.0) for quality in _AVIF_QUALITIES))


def level_of(kind: Lossy, quality: int) -> float:
    """The level of a quality."""
    if kind == "avif":
        return _AVIF_LEVELS[max(bisect_right(_AVIF_QUALITIES, quality) - 1, 0)]
    if kind == "webp":
        return _webp_level(quality)
    return float(quality)


def quality_at(kind: Lossy, level: float) -> int:
    """The quality whose level is nearest to the one given."""
    if kind == "avif":
        return min(zip(_AVIF_LEVELS, _AVIF_QUALITIES, strict=True), key=lambda one: abs(one[0] - level))[1]
    if kind == "webp":
        share = (max(level, 0.0) / 100) ** 3
        return round(100 * (share * 1.5 if share < 0.5 else (share + 1) / 2))
    return round(level)


def _webp_level(quality: int) -> float:
    """libwebp's own mapping of qualities to quantizers: QualityToCompression in src/enc/quant_enc.c."""
    share = quality / 100
    return 100 * math.cbrt(share * 2 / 3 if share < 0.75 else 2 * share - 1)
