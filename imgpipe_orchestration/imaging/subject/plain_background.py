"""Objects on a plain background: products, logos, cut-outs, things photographed on a sheet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from imgpipe_orchestration.imaging.geometry import Box
from imgpipe_orchestration.imaging.opencv import cv2

_SIDE = 128
_PLAIN = 10.0
"""Lab distance from the border's colour up to which a pixel is background (2.3 is just noticeable)."""
_MOSTLY = 0.85
"""Share of the border that must be background; the object may touch an edge."""
_SPECK = 0.002
"""Share of the picture below which a patch is dust."""


def box_on_plain_background(image: Image.Image) -> Box | None:
    """The box around everything that is not background; None where the border is not plain, or there is no object.

    Args:
        image: RGB; a small one will do.
    """
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    lab = np.asarray(cv2.cvtColor(np.asarray(small).astype(np.float32) / 255, cv2.COLOR_RGB2LAB), dtype=np.float32)
    border = np.concatenate([lab[:2].reshape(-1, 3), lab[-2:].reshape(-1, 3), lab[:, 0], lab[:, -1]])
    background = np.median(border, axis=0)
    if float((np.linalg.norm(border - background, axis=1) < _PLAIN).mean()) < _MOSTLY:
        return None
    return _around_patches(np.linalg.norm(lab - background, axis=2) >= _PLAIN)


def _around_patches(differs: NDArray[np.bool_]) -> Box | None:
    """The box around all connected patches but specks of dust; None where there are none."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(differs.astype(np.uint8), connectivity=8)
    kept = [stats[i] for i in range(1, count) if stats[i][cv2.CC_STAT_AREA] >= _SPECK * _SIDE**2]
    if not kept:
        return None
    left, top = min(int(s[0]) for s in kept), min(int(s[1]) for s in kept)
    right, bottom = max(int(s[0] + s[2]) for s in kept), max(int(s[1] + s[3]) for s in kept)
    return Box(left / _SIDE, top / _SIDE, right / _SIDE, bottom / _SIDE)
