"""A small picture that is as hard to encode as a large one: tiles spread evenly over it, put together.

The tiles fade into each other. With hard edges between them, excerpts of soft pictures scored up to 30 points lower as
AVIF than the pictures. Faded, they score a constant better, within 0.6 points (AVIF, WebP) and 0.7 (JPEG;
standard deviations, 29 photographs at 2400 px). Fewer or smaller tiles tell less: 0.8 to 1.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""Rows x columns x channels."""

_TILES, _TILE = 8, 96
"""Tiles in a row and in a column, and pixels of a tile's side."""
FLATTERED = 1.5
"""Points that an excerpt scores better than its picture, in all formats."""
_FADE = 8
"""Pixels over which a tile fades into the next one."""
_ALIGNED = 16
"""Tiles begin at multiples of this, as the encoders' blocks do."""


def excerpt_of(pixels: Pixels) -> Pixels:
    """The excerpt of a picture. A side that is shorter than the tiles together stays as it is."""
    rows = _shortened(pixels)
    return np.ascontiguousarray(_shortened(rows.swapaxes(0, 1)).swapaxes(0, 1))


def _shortened(pixels: Pixels) -> Pixels:
    """The rows that the tiles cover."""
    rows = len(pixels)
    if rows <= _TILES * _TILE:
        return pixels
    middles = (np.arange(_TILES) + 0.5) * rows / _TILES
    starts = ((middles - _TILE / 2) // _ALIGNED * _ALIGNED).astype(int)
    chosen = np.concatenate([pixels[start : start + _TILE] for start in starts])
    share = ((np.arange(_FADE) + 0.5) / _FADE).astype(np.float32).reshape(-1, 1, 1)
    for number, start in enumerate(starts[:-1] + _TILE, 1):
        faded = chosen[number * _TILE : number * _TILE + _FADE]
        faded[:] = np.round(faded * share + pixels[start : start + _FADE] * (1 - share))
    return chosen
