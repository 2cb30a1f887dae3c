"""The cut that makes the halves of a picture most alike, for grids whose pictures share one plain background."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from imgpipe_orchestration.imaging.portraits.grid_lines import Cut, Strip

_ALIKE = 0.55
"""Correlation from which two halves count as two pictures of one person in one framing. Halves of a single portrait are
mirrored (left and right) or different (top and bottom), and correlate by less than 0.4."""
_CELL = 8
_SEARCH = 0.08
"""Farthest shift of an invisible seam, as a share of the length."""


def likest_cut(strip: Strip, *, alone: bool) -> Cut | None:
    """The position that divides `strip` into two halves that look alike; None where there is none.

    Args:
        alone: no seam is visible in the other direction either, so that stronger evidence is required.
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
    # If mirroring one half makes them more alike, they are the halves of a single portrait.
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
