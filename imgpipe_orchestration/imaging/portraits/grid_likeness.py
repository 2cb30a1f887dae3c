"""Where a picture must be cut so that its halves are most alike: for grids whose pictures share one plain ground."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imgpipe_orchestration.imaging.portraits.grid_lines import Cut, Strip

_ALIKE = 0.55
"""Correlation of two halves from which they are taken for two pictures of one person in one framing. Halves of a
single portrait mirror each other (left and right) or differ (top and bottom) and stay below 0.4."""
_CELL = 8
_SEARCH = 0.08
"""Farthest shift of an invisible seam, as a share of the length."""


def likest_cut(strip: Strip, *, alone: bool) -> Cut | None:
    """The position that parts `strip` into two halves that look alike, or None when no position does.

    Args:
        alone: no seam shows in the other direction either; the evidence must then be stronger.
    """
    seen = strip.seen
    length = seen.shape[2]
    if length < 8 * _CELL:
        return None
    grey = seen[0]
    step = max(1, length // 128)
    coarse = grey[:, : length // step * step].reshape(grey.shape[0], -1, step).mean(axis=2)
    middle = coarse.shape[1] // 2
    reach = max(1, int(coarse.shape[1] * _SEARCH))
    best, at = -1.0, middle
    for cut in range(middle - reach, middle + reach + 1):
        size = min(cut, coarse.shape[1] - cut)
        score = _correlation(coarse[:, cut - size : cut], coarse[:, cut : cut + size])
        if score > best + 1e-6:
            best, at = score, cut
    # Of two halves of one and the same ground, the mirrored one fits a single portrait better.
    size = min(at, coarse.shape[1] - at)
    mirrored = _correlation(coarse[:, at - size : at], coarse[:, at : at + size][:, ::-1])
    wanted = _ALIKE + (0.15 if alone else 0.0)
    if best < wanted or mirrored > best:
        return None
    position = strip.start + at * step
    return Cut(position, position)


def _correlation(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    a, b = one - one.mean(), other - other.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm > 1e-3 else 0.0
